/**
 * Visitors of five regions, Workers, a store of one or more regions: a simulation by events, the same each time. A call
 * that writes or counts goes to the primary, through the region next to the Worker; the primary does one command after the
 * other, no more of them a second than the plan has.
 */

/** @typedef {import("./model.mjs").Where} Where */
/** @typedef {keyof typeof PLACES} Place */
/** @typedef {{ kind: string, share: number, calls: Where[], commands: number }} Job `commands`: of all its calls, billed once */

/** Where visitors and the store's regions are. */
export const PLACES = {
  frankfurt: "Frankfurt",
  virginia: "N. Virginia",
  saoPaulo: "São Paulo",
  singapore: "Singapore",
  sydney: "Sydney",
};

/**
 * Round trips in milliseconds between those cities, the 95th percentile of the 30 days to 2026-07-30 in Azure's network
 * (Germany West Central, East US, Brazil South, Southeast Asia, Australia East); the slower direction.
 */
export const ROUND_TRIPS = {
  source: "https://learn.microsoft.com/en-us/azure/networking/azure-network-latency",
  /** @type {Record<string, number>} */
  between: {
    "frankfurt-virginia": 97,
    "frankfurt-saoPaulo": 201,
    "frankfurt-singapore": 179,
    "frankfurt-sydney": 291,
    "virginia-saoPaulo": 121,
    "virginia-singapore": 229,
    "virginia-sydney": 207,
    "saoPaulo-singapore": 337,
    "saoPaulo-sydney": 298,
    "singapore-sydney": 98,
  },
};

export const ASSUMED = {
  /** Milliseconds: a round trip to what is in the same city; from a visitor, and between Worker and store. */
  visitor: 10,
  city: 2,
  /** The store's own time, the 99th percentile by https://upstash.com/docs/redis/features/globaldatabase: read, write. */
  read: 1,
  write: 5,
  /** The Worker's CPU time. */
  worker: 1,
};
/** How much round trips differ: of a log-normal distribution whose 95th percentile is the figure above. */
const SIGMA = 0.08;
const P95 = 1.645;

/** @param {Place} one @param {Place} other */
export function roundTrip(one, other) {
  if (one === other) return 0;
  const { between } = ROUND_TRIPS;
  const found = between[`${one}-${other}`] ?? between[`${other}-${one}`];
  if (found === undefined) throw new Error(`no round trip between ${one} and ${other}`);
  return found;
}

/**
 * @param {object} options
 * @param {Job[]} options.jobs
 * @param {number} options.rate requests a second, from all places alike
 * @param {number} options.seconds in which they come
 * @param {Place} [options.primary]
 * @param {Place[]} [options.regions] of the store
 * @param {"visitor" | "primary"} [options.worker] next to whom it runs
 * @param {number} [options.perSecond] commands that the primary does at most
 * @param {number} [options.seed]
 */
export function simulate({
  jobs,
  rate,
  seconds,
  primary = "frankfurt",
  regions = /** @type {Place[]} */ (Object.keys(PLACES)),
  worker = "visitor",
  perSecond = Infinity,
  seed = 1,
}) {
  const random = randomOf(seed);
  const places = /** @type {Place[]} */ (Object.keys(PLACES));
  const nearest = (/** @type {Place} */ from) =>
    regions.reduce((best, region) => (roundTrip(from, region) < roundTrip(from, best) ? region : best));
  const jitter = () => Math.exp(SIGMA * (normal(random) - P95));
  /** One direction. @param {Place} from @param {Place} to @param {number} within if both are the same */
  const way = (from, to, within) => (jitter() * (from === to ? within : roundTrip(from, to) + within)) / 2;

  const events = new Events();
  /** @type {{ place: Place, kind: string, began: number, ended: number }[]} */
  const done = [];
  let [freeAt, busy] = [0, 0];
  let [underWay, area, last] = [0, 0, 0];
  const enter = (/** @type {number} */ now, /** @type {number} */ by) => {
    area += underWay * (now - last);
    [underWay, last] = [underWay + by, now];
  };
  const arrive = (/** @type {number} */ now) => {
    enter(now, 1);
    const place = /** @type {Place} */ (places[Math.floor(random() * places.length)]);
    let left = random();
    const job = /** @type {Job} */ (jobs.find(({ share }) => (left -= share) < 0) ?? jobs.at(-1));
    const at = worker === "visitor" ? place : primary;
    const there = now + way(place, at, ASSUMED.visitor);
    /** @param {number} time @param {number} count of calls that were made */
    const go = (time, count) => {
      const call = job.calls[count];
      if (!call) {
        const ended = time + ASSUMED.worker + way(at, place, ASSUMED.visitor);
        events.add(ended, () => {
          enter(ended, -1);
          done.push({ place, kind: job.kind, began: now, ended });
        });
        return;
      }
      const region = nearest(at);
      const serving = call === "primary" ? primary : region;
      const leg = () => way(at, region, ASSUMED.city) + (serving === region ? 0 : way(region, serving, 0));
      events.add(time + leg(), (reached) => {
        let served = reached + ASSUMED.read;
        if (serving === primary) {
          const took = (1000 * job.commands) / job.calls.length / perSecond;
          freeAt = Math.max(freeAt, reached) + took;
          busy += took;
          served = freeAt + (call === "primary" ? ASSUMED.write : ASSUMED.read);
        }
        events.add(served + leg(), (back) => go(back, count + 1));
      });
    };
    go(there, 0);
  };
  let at = 0;
  for (;;) {
    at -= (1000 * Math.log(1 - random())) / rate;
    if (at >= 1000 * seconds) break;
    events.add(at, arrive);
  }
  events.run();
  const times = (/** @type {Partial<{ place: Place, kind: string }>} */ { place, kind } = {}) =>
    done
      .filter((one) => (!place || one.place === place) && (!kind || one.kind === kind))
      .map(({ began, ended }) => ended - began)
      .sort((one, other) => one - other);
  return {
    requests: done.length,
    /** Milliseconds, in order. */
    times,
    /** Requests under way, on average until the last one has ended: by Little's law their rate times their mean time. */
    underWay: area / last,
    end: last,
    /** Of the time in which requests came, what the primary needs for their commands: above 1 it falls behind. */
    utilisation: busy / (1000 * seconds),
  };
}

/** @param {number[]} sorted @param {number} part */
export const quantile = (sorted, part) =>
  sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))] ?? NaN;

/** What happens when: a binary heap. */
class Events {
  /** @type {{ at: number, happen: (at: number) => void }[]} */
  #heap = [];

  /** @param {number} at @param {(at: number) => void} happen */
  add(at, happen) {
    const heap = this.#heap;
    let index = heap.push({ at, happen }) - 1;
    for (let up = (index - 1) >> 1; index > 0 && at < this.#at(up); up = (index - 1) >> 1) {
      this.#swap(index, up);
      index = up;
    }
  }

  /** Until nothing is left. */
  run() {
    const heap = this.#heap;
    for (let [first] = heap; first; [first] = heap) {
      const last = heap.pop();
      if (last && last !== first) {
        heap[0] = last;
        for (let index = 0; ;) {
          const left = 2 * index + 1;
          const least = this.#at(left + 1) < this.#at(left) ? left + 1 : left;
          if (this.#at(least) >= this.#at(index)) break;
          this.#swap(index, least);
          index = least;
        }
      }
      first.happen(first.at);
    }
  }

  /** @param {number} index */
  #at(index) {
    return this.#heap[index]?.at ?? Infinity;
  }

  /** @param {number} one @param {number} other */
  #swap(one, other) {
    const heap = this.#heap;
    [heap[one], heap[other]] = [/** @type {any} */ (heap[other]), /** @type {any} */ (heap[one])];
  }
}

/** Mulberry32: numbers from 0 to 1, the same for the same seed. @param {number} seed */
function randomOf(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Box and Muller. @param {() => number} random */
const normal = (random) => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
