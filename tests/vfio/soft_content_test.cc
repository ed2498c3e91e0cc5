// Goal: the content is the documented formula at every offset, and no damage to it goes unseen.
#include "vfio/soft_content.h"

#include <algorithm>
#include <cstring>
#include <random>

namespace godwit {
namespace {

constexpr size_t kBlock = 64 * 1024;
constexpr size_t kSize = 3 * kBlock + 13;

// The formula once more, a byte at a time and without a table.
uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9;
  x ^= x >> 27;
  x *= 0x94d049bb133111eb;
  x ^= x >> 31;
  return x;
}

std::vector<std::byte> FormulaBytes(uint64_t seed, uint64_t offset, size_t size) {
  std::vector<std::byte> bytes(size);
  for (size_t i = 0; i < size; ++i) {
    const uint64_t at = offset + i;
    const uint64_t word = at / 8;
    const uint64_t value =
        Mix(Mix(seed ^ 0x676f647769740000) + word % 8192) ^ Mix(Mix(seed) + word / 8192);
    bytes[i] = static_cast<std::byte>(value >> (at % 8 * 8));
  }
  return bytes;
}

class SoftContentTest : public testing::Test {
 protected:
  std::vector<std::byte> Filled(uint64_t offset, size_t size) const {
    std::vector<std::byte> bytes(size);
    content_.Fill(offset, absl::MakeSpan(bytes));
    return bytes;
  }
  size_t Mismatch(const std::vector<std::byte>& bytes) const {
    return content_.FirstMismatch(0, bytes);
  }
  const SoftContent content_{7};
};

TEST_F(SoftContentTest, IsTheDocumentedFormula) {
  EXPECT_EQ(Filled(0, kSize), FormulaBytes(7, 0, kSize));
  const uint64_t far = (uint64_t{1} << 40) + 12345;
  EXPECT_EQ(Filled(far, 100), FormulaBytes(7, far, 100));
}

TEST_F(SoftContentTest, DoesNotDependOnHowItIsCutUp) {
  const std::vector<std::byte> whole = Filled(0, kSize);
  std::mt19937 random(20240131);
  for (const size_t piece_bytes_max : {size_t{1}, size_t{9}, size_t{5000}, 2 * kBlock}) {
    std::vector<std::byte> pieces(kSize);
    std::uniform_int_distribution<size_t> piece_bytes(1, piece_bytes_max);
    for (size_t at = 0; at < kSize;) {
      const size_t bytes = std::min(piece_bytes(random), kSize - at);
      content_.Fill(at, absl::MakeSpan(pieces).subspan(at, bytes));
      ASSERT_EQ(content_.FirstMismatch(at, absl::MakeConstSpan(whole).subspan(at, bytes)), bytes);
      at += bytes;
    }
    EXPECT_EQ(pieces, whole) << "pieces of up to " << piece_bytes_max;
  }
}

TEST_F(SoftContentTest, AnyFlippedBitIsFoundWhereItIs) {
  std::vector<std::byte> bytes = Filled(0, kSize);
  ASSERT_EQ(Mismatch(bytes), kSize);
  for (const size_t at : {size_t{0}, size_t{7}, size_t{8}, kBlock - 1, kBlock, kBlock + 1,
                          2 * kBlock + 4095, kSize - 8, kSize - 1}) {
    for (int bit = 0; bit < 8; ++bit) {
      bytes[at] ^= std::byte{1} << bit;
      EXPECT_EQ(Mismatch(bytes), at);
      bytes[at] ^= std::byte{1} << bit;
    }
  }
}

TEST_F(SoftContentTest, SwappedWordsPagesAndBlocksAreFound) {
  for (const size_t piece : {size_t{8}, size_t{4096}, kBlock}) {
    for (const size_t second : {piece, 2 * piece, 2 * kBlock}) {
      std::vector<std::byte> bytes = Filled(0, kSize);
      std::swap_ranges(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(piece),
                       bytes.begin() + static_cast<ptrdiff_t>(second));
      EXPECT_LT(Mismatch(bytes), 8u) << piece << " bytes at 0 and " << second;
    }
  }
}

TEST_F(SoftContentTest, AnotherSeedMakesOtherContentFromTheStart) {
  for (const uint64_t seed : {uint64_t{0}, uint64_t{6}, uint64_t{8}, ~uint64_t{0}}) {
    std::vector<std::byte> bytes(kSize);
    SoftContent(seed).Fill(0, absl::MakeSpan(bytes));
    EXPECT_LT(Mismatch(bytes), 8u) << seed;
  }
}

}  // namespace
}  // namespace godwit
