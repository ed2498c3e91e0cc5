/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef GODWIT_SYNTH_PATTERN_H
#define GODWIT_SYNTH_PATTERN_H

#include <linux/types.h>
#include <linux/unaligned.h>

/* The pattern: data byte `offset` of a session is one of the bytes of a hash of seed and offset / 8. */
static inline u64 pattern_word(u64 seed, u64 index)
{
	u64 x = (index + 1) * 0x9e3779b97f4a7c15ULL + seed;

	return (x ^ (x >> 29)) * 0xbf58476d1ce4e5b9ULL;
}

static inline u8 pattern_byte(u64 seed, u64 offset)
{
	return pattern_word(seed, offset / 8) >> (8 * (offset % 8));
}

static inline void pattern_fill(u8 *to, u64 seed, u64 offset, size_t bytes)
{
	for (; bytes && offset % 8; bytes--)
		*to++ = pattern_byte(seed, offset++);
	for (; bytes >= 8; bytes -= 8, to += 8, offset += 8)
		put_unaligned_le64(pattern_word(seed, offset / 8), to);
	for (; bytes; bytes--)
		*to++ = pattern_byte(seed, offset++);
}

static inline bool pattern_is(const u8 *from, u64 seed, u64 offset, size_t bytes)
{
	u64 difference = 0;

	for (; bytes && offset % 8; bytes--)
		difference |= *from++ ^ pattern_byte(seed, offset++);
	for (; bytes >= 8; bytes -= 8, from += 8, offset += 8)
		difference |= get_unaligned_le64(from) ^ pattern_word(seed, offset / 8);
	for (; bytes; bytes--)
		difference |= *from++ ^ pattern_byte(seed, offset++);
	return !difference;
}

#endif
