"""
A Flask application with Flask-Session, as its tutorials write them, for the tests. flask-app.mjs starts it, puts where its
Redis is and its configuration into the environment, and reads where it listens from the first line of its output.

What a test cannot know of Python it asks for: routes under /test say how a session looks in here, and write and read
records with msgspec.
"""

import base64
import datetime
import decimal
import json
import logging
import os
import pickle
import random
import threading
import uuid
import warnings

import msgspec
from flask import Flask, Response, abort, jsonify, redirect, request, session
from flask_login import LoginManager, UserMixin, current_user, fresh_login_required
from flask_login import login_required, login_user, logout_user
from flask_session import Session
from redis import Redis
from werkzeug.serving import make_server

warnings.simplefilter("ignore", DeprecationWarning)  # of the signer, which is what some tests are about
logging.getLogger("werkzeug").setLevel(logging.ERROR)

PATIENCE = 60
"""Seconds that a request waits for a test at most."""

database = Redis(unix_socket_path=os.environ["REDIS_SOCKET"])
settings = json.loads(os.environ["FLASK_SETTINGS"])


def secret(value):
    """A secret is text, or bytes as base64, or several."""
    if isinstance(value, list):
        return [secret(one) for one in value]
    return base64.b64decode(value["base64"]) if isinstance(value, dict) else value


app = Flask(__name__)
app.config.update(SESSION_TYPE="redis", SESSION_REDIS=database)
app.config.update(settings)
if "SECRET_KEY" in settings:
    app.config["SECRET_KEY"] = secret(settings["SECRET_KEY"])
Session(app)


# 1. What the tutorials have.


@app.get("/")
def visits():
    session["views"] = session.get("views", 0) + 1
    return f"Views: {session['views']}"


@app.post("/login")
def login():
    if request.args.get("regenerate"):
        app.session_interface.regenerate(session)
    session["user_id"] = request.get_json()["user_id"]
    return redirect("/dashboard")


@app.get("/dashboard")
def dashboard():
    if "user_id" not in session:
        abort(401)
    return f"Hello, {session['user_id']}"


@app.post("/logout")
def logout():
    session.clear()
    return redirect("/")


@app.post("/forget")
def forget():
    """The other way of the tutorials to log out."""
    session.pop("user_id", None)
    return redirect("/")


@app.post("/cart/<item>")
def add_to_cart(item):
    cart = session.setdefault("cart", {})
    cart[item] = cart.get(item, 0) + 1
    session.modified = True
    return jsonify(cart)


@app.put("/permanent/<yes_or_no>")
def make_permanent(yes_or_no):
    session.permanent = yes_or_no == "yes"
    return Response(status=204)


@app.get("/static-like")
def static_like():
    """Does not look at the session at all."""
    return "body { color: black }"


# 2. flask-login.

logins = LoginManager(app)


class User(UserMixin):
    def __init__(self, id):
        self.id = id


@logins.user_loader
def load_user(id):
    return User(id)


@app.post("/account/login")
def account_login():
    login_user(User(request.get_json()["user_id"]))
    return Response(status=204)


@app.get("/account")
@login_required
def account():
    return f"Hello, {current_user.get_id()}"


@app.get("/account/sensitive")
@fresh_login_required
def sensitive():
    return "as you typed your password just now"


@app.post("/account/logout")
def account_logout():
    logout_user()
    return Response(status=204)


# 3. A request that takes as long as a test wants it to.

arrived = {}
released = {}
lock = threading.Lock()


def event(kind, name):
    with lock:
        return kind.setdefault(name, threading.Event())


@app.route("/slow/<name>", methods=["GET", "POST"])
def slow(name):
    """Has read the session when it arrives; GET only reads it, POST counts a visit on what it has read."""
    views = session.get("views", 0)
    event(arrived, name).set()
    if not event(released, name).wait(PATIENCE):
        abort(504)
    if request.method == "POST":
        session["views"] = views + 1
    return str(views)


# 4. What a test asks for.


@app.get("/test/session")
def show():
    """The session as Python sees it."""
    return jsonify(sid=session.sid, permanent=session.permanent, found=bool(session), data=spell(dict(session)))


@app.patch("/test/session")
def change():
    """Takes over members of a JSON object."""
    session.update(request.get_json())
    return Response(status=204)


def special_values():
    """What msgpack has and JSON lacks, and what Python has and both lack."""
    hours = datetime.timezone(datetime.timedelta(hours=5, minutes=30))
    return {
        "bytes": b"\x00\xff\xfe",
        "no bytes": b"",
        "bytearray": bytearray(b"abc"),
        "aware": datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=datetime.timezone.utc),
        "aware elsewhere": datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=hours),
        "before 1970": datetime.datetime(1901, 2, 3, 4, 5, 6, 7, tzinfo=datetime.timezone.utc),
        "far": datetime.datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=datetime.timezone.utc),
        "naive": datetime.datetime(2026, 1, 2, 3, 4, 5),
        "date": datetime.date(2026, 1, 2),
        "time": datetime.time(3, 4, 5),
        "duration": datetime.timedelta(seconds=90),
        "uuid": uuid.UUID("12345678-1234-5678-1234-567812345678"),
        "decimal": decimal.Decimal("1.50"),
        "large": 2**53 + 1,
        "largest": 2**64 - 1,
        "smallest": -(2**63),
        "whole float": 1.0,
        "negative zero": -0.0,
        "huge float": 1e300,
        "tuple": (1, 2),
        "unicode": "ünï\u0000cödé 🧥 \u2028",
        "nested": {"list": [None, True, {"deep": [b"x", {"deeper": 1.5}]}]},
        "": "a name that is empty",
        "a/b~c": "a name that a pointer must escape",
    }


def special_keys():
    return {
        "whole": {1: "one", -1: "minus one"},
        "null": {None: 1},
        "float": {1.5: 1, float("inf"): 2},
        "truth": {True: 1, False: 2},
        "bytes": {b"x": 1},
        "list": {(1, "2"): 1},
        "same name": {1: "number", "1": "text"},
        "date": {datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc): 1},
    }


def odd_floats():
    return {"infinity": float("inf"), "minus infinity": float("-inf"), "not a number": float("nan")}


@app.post("/test/special")
def special():
    """Puts all of them into the session that the serializer in use can write."""
    session["special"] = special_values()
    session["floats"] = odd_floats()
    if settings.get("SESSION_SERIALIZATION_FORMAT") != "json":
        session["keys"] = special_keys()
        session["extension"] = msgspec.msgpack.Ext(5, b"x")
    else:
        session["special"]["beyond 64 bits"] = 2**70
    return Response(status=204)


def spell(value):
    """One text for one value, types and all; members in the order of their names."""
    if isinstance(value, dict):
        return "{" + ", ".join(sorted(f"{spell(key)}: {spell(one)}" for key, one in value.items())) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(spell, value)) + "]"
    if isinstance(value, msgspec.msgpack.Ext):
        return f"Ext({value.code}, {bytes(value.data)!r})"
    return repr(value)


def has_odd_names(value):
    """Whether there is a name in it that is no text."""
    if isinstance(value, dict):
        return any(not isinstance(name, str) or has_odd_names(one) for name, one in value.items())
    return isinstance(value, (list, tuple)) and any(map(has_odd_names, value))


def shown(value):
    """A value as JSON can show it: msgspec's own way. Nothing if it has names that JSON lacks."""
    return None if has_odd_names(value) else json.loads(msgspec.json.encode(without_zeros(value)))


def without_zeros(value):
    """Dates as texts without zeros at the end of their seconds, so that texts can be compared."""
    if isinstance(value, dict):
        return {name: without_zeros(one) for name, one in value.items()}
    if isinstance(value, list):
        return [without_zeros(one) for one in value]
    if isinstance(value, datetime.datetime):
        text = value.isoformat().removesuffix("+00:00")
        return (text.rstrip("0") if "." in text else text) + "Z"
    return value


@app.get("/test/arrived/<name>")
def wait_for_arrival(name):
    return Response(status=204 if event(arrived, name).wait(PATIENCE) else 504)


@app.post("/test/release/<name>")
def release(name):
    event(released, name).set()
    return Response(status=204)


class Values:
    """Values that Flask-Session can store, at random."""

    def __init__(self, seed, serializer):
        self.random = random.Random(seed)
        self.serializer = serializer

    def text(self):
        alphabet = "abz059 _-./~\"\\\n\u0000äß€🧥"
        length = self.random.choice([0, 1, 3, 8, 31, 32])
        return "".join(self.random.choice(alphabet) for _ in range(length))

    def moment(self):
        borders = [0, 1, 2**32 - 1, 2**32, 2**34 - 1, 2**34, -1, -(2**31)]
        seconds = self.random.choice([*borders, self.random.getrandbits(35)])
        start = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
        return start + datetime.timedelta(seconds=seconds, microseconds=self.random.choice([0, 1, 500000, 999999]))

    def whole(self):
        near = self.random.choice([0, 2**5, 2**7, 2**8, 2**15, 2**16, 2**31, 2**32, 2**53, 2**62])
        return self.random.choice([1, -1]) * (near + self.random.choice([-1, 0, 1]))

    def plain(self):
        """What JSON has as well."""
        return self.random.choice(
            [
                lambda: None,
                lambda: self.random.random() < 0.5,
                self.whole,
                lambda: 2**64 - 1 - self.random.getrandbits(3),
                lambda: self.random.choice([0.0, -0.0, 1.0, -1.5, 1e16, 1e22, 5e-324, 1.7976931348623157e308]),
                lambda: self.random.uniform(-1e6, 1e6),
                self.text,
            ]
        )()

    def rare(self):
        """What is written as text, or only by msgpack."""
        return self.random.choice(
            [
                lambda: self.random.randbytes(self.random.choice([0, 1, 5, 255, 256])),
                self.moment,
                lambda: self.moment().replace(tzinfo=None),
                lambda: self.moment().date(),
                lambda: uuid.UUID(int=self.random.getrandbits(128)),
                lambda: decimal.Decimal(self.random.getrandbits(70)) / 1000,
                lambda: self.random.choice([float("inf"), float("-inf"), float("nan")]),
            ]
        )()

    def name(self):
        if self.serializer == "msgpack" and self.random.random() < 0.05:
            return self.random.choice([self.whole(), None, True, 1.5, b"k", (1, "x"), self.moment()])
        return self.text()

    def value(self, depth):
        kind = self.random.random()
        if depth and kind < 0.2:
            return [self.value(depth - 1) for _ in range(self.random.choice([0, 1, 2, 16]))]
        if depth and kind < 0.5:
            size = self.random.choice([0, 1, 3, 16])
            return {self.name(): self.value(depth - 1) for _ in range(size)}
        return self.rare() if kind > 0.85 else self.plain()

    def record(self):
        record = {self.text(): self.value(2) for _ in range(self.random.choice([1, 2, 5, 16]))}
        return {**record, "_permanent": self.random.random() < 0.5, "views": self.random.getrandbits(6)}


def serializer():
    return msgspec.json if settings.get("SESSION_SERIALIZATION_FORMAT") == "json" else msgspec.msgpack


@app.post("/test/records")
def make_records():
    """Writes sessions at random; says how each looks."""
    made = []
    values = Values(int(request.args["seed"]), settings.get("SESSION_SERIALIZATION_FORMAT", "msgpack"))
    for _ in range(int(request.args["count"])):
        sid = app.session_interface._generate_sid(32)
        encoded = serializer().encode(values.record())
        record = serializer().decode(encoded)
        database.set(app.session_interface._get_store_id(sid), encoded, ex=3600)
        made.append({"cookie": cookie_of(sid), "sid": sid, "shown": shown(record), **looks(record)})
    return jsonify(made)


@app.post("/test/decode")
def decode_records():
    """How these records look by now."""
    keys = [app.session_interface._get_store_id(sid) for sid in request.get_json()]
    return jsonify([looks(serializer().decode(text)) if text else None for text in database.mget(keys)])


def looks(record):
    """A record member by member, without those that the tests change."""
    members = {key: spell(value) for key, value in record.items() if key not in ("views", "edge")}
    return {"views": record.get("views"), "edge": record.get("edge"), "others": members}


def cookie_of(sid):
    interface = app.session_interface
    return interface._sign(app, sid) if interface.use_signer else sid


@app.post("/test/cookies")
def make_cookies():
    """Signs ids."""
    return jsonify([cookie_of(sid) for sid in request.get_json()])


@app.get("/test/pickles")
def pickles():
    """A session as versions of Flask-Session before 0.7 wrote it, in every protocol of pickle, as base64."""
    record = {"views": 1, "_permanent": True}
    dumped = [pickle.dumps(record, protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    return jsonify([base64.b64encode(one).decode() for one in dumped])


if __name__ == "__main__":
    server = make_server("127.0.0.1", int(os.environ.get("PORT", 0)), app, threaded=True)
    print(f"http://127.0.0.1:{server.port}", flush=True)
    server.serve_forever()
