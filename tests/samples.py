"""Conversations to try things on, a file of them as `potofs import` takes it."""

import json
import os
import random
from pathlib import Path
from typing import Any

#: Real conversations, if somebody names a file of them.
REAL = Path(os.environ.get("POTOFS_CONVERSATIONS", "nowhere"))

_TEXTS = (
    "Hi! I'd like to change my flight to the 20th, please: reservation 4WQ150, one passenger.",
    "Thank you, Mia. Could you please let me know:\n\n1. The trip type\n2. The cabin class\n",
    '{"reservation_id": "4WQ150", "flights": [{"number": "HAT170", "price": 250}]}',
    "",
    "yes",
    "# not a comment\n--- not a marker\n\ttabs, and   blanks   \n",
    "Grüße aus Köln 👋 — 日本語も",
    "12:30",
    "  leading blanks stay",
)


def make(users: int = 12, conversations: int = 4, seed: int = 7) -> list[dict[str, Any]]:
    """Conversations of several users, in the order in which they ended; the same ones each time."""
    chance = random.Random(seed)
    made = []
    for number in range(users * conversations):
        user, turn = f"user_{number % users:03d}", number // users
        messages = []
        for position in range(chance.randint(2, 40)):
            role = "user" if position % 2 == 0 else chance.choice(["assistant", "assistant", "tool"])
            time = f"2024-05-{1 + turn:02d}T08:{number % 60:02d}:{position:02d}.{chance.randint(0, 999):03d}Z"
            messages.append(
                {
                    "role": role,
                    "timestamp": time,
                    "content": chance.choice(_TEXTS),
                    "metadata": {"sessionId": f"session-{number}", "tokens": chance.randint(1, 900)},
                }
            )
        made.append({"user": user, "conversation": f"session-{number}", "messages": messages})
    return made


def write(path: Path) -> None:
    """Writes made conversations, one JSON object a line."""
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in make()))


def load(path: Path) -> list[dict[str, Any]]:
    """The conversations of a file."""
    return [json.loads(line) for line in path.read_text().splitlines()]
