# SPDX-License-Identifier: Apache-2.0
"""Pleasant names for instances that nobody named."""

from __future__ import annotations

from sysd.cli.system import posix

FIRST = (
    "amber able airy apt azure bold brave bright brisk calm cheery clear clever cosy crisp deft eager early easy fair "
    "fleet fond frank free fresh gentle glad golden grand happy hardy hazel ideal jolly jovial keen kind lively loyal "
    "lucid lucky lunar mellow merry mild misty modest neat nifty nimble noble plucky polite proud quick quiet rapid "
    "ready regal rosy serene sharp silver sleek smart snug solar spry stable steady sunny swift tidy true vivid warm "
    "wise witty young zesty"
)
SECOND = (
    "acorn alder aspen badger beacon beaver birch bison bramble breeze brook canyon cedar cherry clover comet coral "
    "crane creek curlew dingo dolphin dune eagle elm falcon fern finch fjord forest fox gannet gecko glade grove gull "
    "harbor hare hawk heron hill ibis iris island ivy jay juniper kestrel kiwi koala lagoon lake lark lemur lily lynx "
    "magpie maple marten meadow meteor moss newt oak orca otter owl pebble pine plover pond poplar puffin quail rabbit "
    "raven reef ridge river robin rook rowan seal sparrow spruce stork swan tern thrush tiger trout tulip valley wren"
)


def random_name() -> str:
    """Two words with a hyphen between them: a valid instance name."""
    number = int.from_bytes(posix.urandom(8), "little")
    first, second = FIRST.split(), SECOND.split()
    return f"{first[number % len(first)]}-{second[(number >> 32) % len(second)]}"
