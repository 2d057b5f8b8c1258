r"""The split of a host: reaching it, replaying what runs before it, and
shipping what runs before it as shapes.

A host at rest is the host. What happens at its split is set for a while, and
gone afterwards::

                        before the split          after the split
                    .-----------------------.  .------------------.
    at rest         | image -> ... -> f     |->| f -> ... -> task |
                    '-----------------------'  '------------------'
    attached        | image -> ... -> f     |->  (f seen, by forward hooks)
      operating     |                 f     |->  operation(f)  -> ... -> task
    record          | image -> ... -> f     |->  the same; outputs are kept
    replay          |   kept outputs -> f   |->  operation(f)  -> ... -> task
    shapes          |   NaN of its shapes   |->  f from a file -> ... -> task

* :func:`attached` puts forward hooks on the module that the split names. A
  neck in the config sees the splits 'backbone' and 'neck' itself.
* operating: :meth:`FeatJNDNeck.changing` gives every level at the split to a
  function; :meth:`FeatJNDNeck.run` lets an operation do so and measures it.
* :func:`run_until_split` ends a pass there.
* :class:`PrefixReplay` records the part before the split in one pass, and
  replays it in the others over the same input.
* :class:`PrefixShapes` records its shapes only, for another process that has
  the features and not the image.
* :class:`TailMemo` computes once what two passes of the rest have in common.
* :func:`idle_modules` says which modules each side can do without.
"""
from .ending import run_until_split
from .halves import Passage, idle_modules
from .memo import TailMemo
from .reach import attached, resolve_split
from .replay import PrefixReplay
from .shapes import PrefixShapes, from_blank, to_blank

__all__ = [
    'Passage', 'PrefixReplay', 'PrefixShapes', 'TailMemo', 'attached',
    'from_blank', 'idle_modules', 'resolve_split', 'run_until_split',
    'to_blank'
]
