/** What the store was asked for, as Upstash would put it on the bill. */

const LOG_LENGTH = 200;

export class Counters {
  /** HTTP requests, also those that were refused or never answered. */
  calls = 0;
  /** Billed commands: one each, and for a script one more for every command it runs. */
  commands = 0;
  /** `commands`, by name. @type {Record<string, number>} */
  byName = {};
  /** Bytes of bodies, without headers. */
  bytesIn = 0;
  bytesOut = 0;
  /** The names of the commands of the latest requests. @type {string[][]} */
  log = [];

  reset() {
    this.calls = this.commands = this.bytesIn = this.bytesOut = 0;
    this.byName = {};
    this.log = [];
  }

  /**
   * What happens while `action` runs.
   *
   * @template T
   * @param {() => T | Promise<T>} action
   * @returns {Promise<{ value: T, calls: number, commands: number, byName: Record<string, number> }>}
   */
  async during(action) {
    const before = { calls: this.calls, commands: this.commands, byName: { ...this.byName } };
    const value = await action();
    /** @type {Record<string, number>} */
    const byName = {};
    for (const [name, count] of Object.entries(this.byName)) {
      const more = count - (before.byName[name] ?? 0);
      if (more !== 0) byName[name] = more;
    }
    return { value, calls: this.calls - before.calls, commands: this.commands - before.commands, byName };
  }

  /** @param {string[]} names of a request's commands */
  remember(names) {
    this.log.push(names);
    if (this.log.length > LOG_LENGTH) this.log.shift();
  }

  /**
   * @param {string} name
   * @param {number} [times]
   */
  bill(name, times = 1) {
    this.commands += times;
    this.byName[name] = (this.byName[name] ?? 0) + times;
  }
}
