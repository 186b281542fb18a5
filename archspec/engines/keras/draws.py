"""PyTorch's random draws in TensorFlow: both programs augment an image alike."""

import math
import threading
from typing import Any

import numpy as np

WORDS = 352  # for 16 transforms: a resized crop draws 22 at most, others fewer
_thread = threading.local()


class Draws:
    """The random draws for an image: those of PyTorch after `torch.manual_seed`.

    PyTorch's generator on a CPU and NumPy's RandomState are the same Mersenne Twister;
    `uniform`, `integer` and `normal` make of its 32-bit words what torch.rand,
    torch.randint and torch.randn do.
    """

    def __init__(self, seed: int, epoch: int, index: Any) -> None:
        import tensorflow as tf

        def draw_words(index: Any) -> Any:
            if not hasattr(_thread, "random"):
                _thread.random = np.random.RandomState()
            _thread.random.seed(hash((seed, epoch, int(index))) % 2**32)
            return _thread.random.randint(0, 2**32, WORDS, np.uint32).astype(np.int64)

        self._words = tf.numpy_function(draw_words, [index], tf.int64)
        self._used: Any = tf.constant(0)

    def words(self, count: int) -> Any:
        """Return the next `count` words of 32 bits."""
        words = self._words[self._used : self._used + count]
        words.set_shape(count)
        self._used += count
        return words

    def give_back(self, count: Any) -> None:
        """Have the last `count` words drawn again."""
        self._used -= count

    def integer(self, bound: Any) -> Any:
        """Return an integer from 0 to `bound` - 1; 0 without a draw if that is all."""
        import tensorflow as tf

        bound = tf.cast(bound, tf.int64)
        integer = self.words(1)[0] % bound
        self.give_back(tf.cast(bound == 1, tf.int32))
        return tf.cast(integer, tf.int32)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> Any:
        """Return a number from `low` to `high`."""
        return to_uniform(self.words(1), low, high)[0]

    def normal(self, count: int) -> Any:
        """Return `count` < 16 numbers of N(0, 1): by Box and Muller, in pairs."""
        import tensorflow as tf

        pairs = -(-count // 2)
        words = tf.reshape(self.words(4 * pairs), (2 * pairs, 2))
        bits = words[:, 0] % 2**21 * 2**32 + words[:, 1]
        angle, radius = tf.unstack(
            tf.reshape(tf.cast(bits, tf.float64) * 2.0**-53, (pairs, 2)), axis=1
        )
        radius, angle = tf.sqrt(-2 * tf.math.log1p(-radius)), 2 * math.pi * angle
        both = tf.stack([radius * tf.cos(angle), radius * tf.sin(angle)], axis=1)
        return tf.cast(tf.reshape(both, (-1,))[:count], tf.float32)


def to_uniform(words: Any, low: float, high: float) -> Any:
    """Return numbers from `low` to `high`: of 24 bits of each word."""
    import tensorflow as tf

    first, last = tf.constant(low, tf.float32), tf.constant(high, tf.float32)
    return tf.cast(words % 2**24, tf.float32) * 2.0**-24 * (last - first) + first
