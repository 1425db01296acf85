"""
A small shop with the sessions of Flask's tutorials: a visit counter, a login with a dashboard, a cart. Flask-Session
keeps them in Redis, and nothing in here knows of Cloakroom, which uses the same sessions at the same time.
"""

import os

from flask import Flask, redirect, render_template, request, session
from flask_session import Session
from redis import Redis

app = Flask(__name__)
app.config.update(
    SECRET_KEY=os.environ.get("SECRET_KEY", "dev"),
    SESSION_TYPE="redis",
    SESSION_REDIS=Redis.from_url(os.environ.get("REDIS_URL", "redis://localhost:6379")),
    # Else every request writes its whole session, and would undo what Cloakroom changes meanwhile.
    SESSION_REFRESH_EACH_REQUEST=False,
)
Session(app)


@app.get("/")
def home():
    session["views"] = session.get("views", 0) + 1
    return render_template("shop.html", cloakroom=os.environ.get("CLOAKROOM_URL", "http://localhost:8787"))


@app.post("/login")
def login():
    # A real shop asks for a password here, or leaves the login to Cloakroom.
    app.session_interface.regenerate(session)
    session["user_id"] = request.form["name"]
    return redirect("/dashboard")


@app.get("/dashboard")
def dashboard():
    if "user_id" not in session:
        return redirect("/")
    return f"Hello, {session['user_id']}", {"Content-Type": "text/plain; charset=utf-8"}


@app.post("/logout")
def logout():
    session.clear()
    return redirect("/")


@app.post("/cart")
def add_to_cart():
    cart = session.get("cart", {})
    item = request.form["item"]
    session["cart"] = {**cart, item: cart.get(item, 0) + 1}
    return redirect("/")


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", 8000)))
