#include "vfio/soft_content.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace godwit {
namespace {

static_assert(std::endian::native == std::endian::little, "the formula's words are little-endian");

constexpr size_t kWordBytes = sizeof(uint64_t);
constexpr size_t kBlockBytes = 64 * 1024;
constexpr size_t kBlockWords = kBlockBytes / kWordBytes;
constexpr uint64_t kTableSalt = 0x676f647769740000;

constexpr uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

uint64_t Load(const std::byte* from) {
  uint64_t word;
  std::memcpy(&word, from, kWordBytes);
  return word;
}

// Byte p of a block is byte p of the table XOR byte p mod 8 of the block's hash. A run that starts
// in mid-word therefore needs no special case: only the hash, rotated to the run's start.
struct Run {
  const std::byte* table;  // at the run's start
  uint64_t hash;           // rotated
  size_t size_bytes;       // to the block's end at most
};

Run RunAt(const std::vector<std::byte>& table, uint64_t block_key, uint64_t offset, size_t left) {
  const size_t start = static_cast<size_t>(offset % kBlockBytes);
  const uint64_t hash = Mix(block_key + offset / kBlockBytes);
  return {table.data() + start, std::rotr(hash, static_cast<int>(start % kWordBytes * 8)),
          std::min(kBlockBytes - start, left)};
}

std::byte TailByte(const Run& run, size_t index) {
  return run.table[index] ^ static_cast<std::byte>(run.hash >> (index % kWordBytes * 8));
}

// The two loops that the compiler vectorises.
void FillWords(const Run& run, std::byte* out, size_t words) {
  for (size_t w = 0; w < words; ++w) {
    const uint64_t word = Load(run.table + w * kWordBytes) ^ run.hash;
    std::memcpy(out + w * kWordBytes, &word, kWordBytes);
  }
}

bool WordsMatch(const Run& run, const std::byte* in, size_t words) {
  uint64_t difference = 0;
  for (size_t w = 0; w < words; ++w) {
    difference |= Load(run.table + w * kWordBytes) ^ run.hash ^ Load(in + w * kWordBytes);
  }
  return difference == 0;
}

}  // namespace

SoftContent::SoftContent(uint64_t seed) : block_key_(Mix(seed)), table_(kBlockBytes) {
  const uint64_t table_key = Mix(seed ^ kTableSalt);
  for (size_t i = 0; i < kBlockWords; ++i) {
    const uint64_t word = Mix(table_key + i);
    std::memcpy(table_.data() + i * kWordBytes, &word, kWordBytes);
  }
}

void SoftContent::Fill(uint64_t offset, absl::Span<std::byte> out) const {
  for (size_t done = 0; done < out.size();) {
    const Run run = RunAt(table_, block_key_, offset + done, out.size() - done);
    const size_t words = run.size_bytes / kWordBytes;
    FillWords(run, out.data() + done, words);
    for (size_t i = words * kWordBytes; i < run.size_bytes; ++i) out[done + i] = TailByte(run, i);
    done += run.size_bytes;
  }
}

size_t SoftContent::FirstMismatch(uint64_t offset, absl::Span<const std::byte> in) const {
  for (size_t done = 0; done < in.size();) {
    const Run run = RunAt(table_, block_key_, offset + done, in.size() - done);
    const size_t words = run.size_bytes / kWordBytes;
    // The exact place matters only once something is wrong: then go byte by byte.
    const size_t matched = WordsMatch(run, in.data() + done, words) ? words * kWordBytes : 0;
    for (size_t i = matched; i < run.size_bytes; ++i) {
      if (in[done + i] != TailByte(run, i)) return done + i;
    }
    done += run.size_bytes;
  }
  return in.size();
}

}  // namespace godwit
