"""Pieces of memory: each has one owner, and is used again when that is gone."""

import ctypes
import gc
import itertools

from tincan.record.pages import HUGE, PAGE, PIECE, Pool


class Owner:
    pass


def address(taken: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(taken))


def test_pieces_do_not_overlap_and_are_aligned_to_pages() -> None:
    pool = Pool()
    owners = [Owner() for _ in range(20)]
    pieces = [pool.take(owner) for owner in owners]
    starts = sorted(map(address, pieces))
    assert all(len(each) == PIECE for each in pieces)
    assert all(later - start >= PIECE for start, later in itertools.pairwise(starts))
    assert all(start % PAGE == 0 for start in starts)
    assert all(start // HUGE == (start + PIECE - 1) // HUGE for start in starts)


def test_a_piece_is_used_again() -> None:
    pool = Pool()
    owner = Owner()
    first = address(pool.take(owner))
    del owner
    gc.collect()
    other = Owner()
    assert address(pool.take(other)) == first
