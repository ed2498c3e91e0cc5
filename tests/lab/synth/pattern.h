/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef GODWIT_SYNTH_PATTERN_H
#define GODWIT_SYNTH_PATTERN_H

#include <linux/types.h>
#include <linux/unaligned.h>

/*
 * The pattern: data byte `offset` of a session is one of the bytes of a word that is a hash of the seed, and
 * has one number added for each 8 bytes. A step is one addition, so that what it costs to make and to check
 * hides little of what it costs to move.
 */
#define SYNTH_PATTERN_STEP 0x9e3779b97f4a7c15ULL

static inline u64 pattern_word(u64 seed, u64 index)
{
	u64 x = seed * 0xbf58476d1ce4e5b9ULL;

	x = (x ^ (x >> 29)) * 0x94d049bb133111ebULL;
	return (x ^ (x >> 32)) + (index + 1) * SYNTH_PATTERN_STEP;
}

static inline u8 pattern_byte(u64 seed, u64 offset)
{
	return pattern_word(seed, offset / 8) >> (8 * (offset % 8));
}

static inline void pattern_fill(u8 *to, u64 seed, u64 offset, size_t bytes)
{
	u64 word;

	for (; bytes && offset % 8; bytes--)
		*to++ = pattern_byte(seed, offset++);
	word = pattern_word(seed, offset / 8);
	for (; bytes >= 8; bytes -= 8, to += 8, offset += 8, word += SYNTH_PATTERN_STEP)
		put_unaligned_le64(word, to);
	for (; bytes; bytes--)
		*to++ = pattern_byte(seed, offset++);
}

static inline bool pattern_is(const u8 *from, u64 seed, u64 offset, size_t bytes)
{
	u64 difference = 0;
	u64 word;

	for (; bytes && offset % 8; bytes--)
		difference |= *from++ ^ pattern_byte(seed, offset++);
	word = pattern_word(seed, offset / 8);
	for (; bytes >= 8; bytes -= 8, from += 8, offset += 8, word += SYNTH_PATTERN_STEP)
		difference |= get_unaligned_le64(from) ^ word;
	for (; bytes; bytes--)
		difference |= *from++ ^ pattern_byte(seed, offset++);
	return !difference;
}

#endif
