#include "transport/tls/secret_file.h"

#include <absl/strings/ascii.h>
#include <absl/strings/str_cat.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/errno_status.h"
#include "godwit/unique_fd.h"

namespace godwit {
namespace {

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

void Secret::Wipe() {
  bytes_.resize(bytes_.capacity());  // what a short string was moved from is still there
  OPENSSL_cleanse(bytes_.data(), bytes_.size());
  bytes_.clear();
}

absl::StatusOr<Secret> ReadTrustFile(const std::string& path, absl::string_view what, FileIs is) {
  const std::string where = absl::StrCat(what, ", file ", path);
  // Not blocking: a FIFO that nobody writes would never open.
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd.valid()) return ErrnoStatus(errno, absl::StrCat(where, ": it can't be read"));
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return ErrnoStatus(errno, where);
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": it is no regular file"));
  }
  if (is == FileIs::kSecret && (info.st_mode & (S_IROTH | S_IWOTH)) != 0) {
    return absl::PermissionDeniedError(
        absl::StrCat(where,
                     ": others may read or write it, so it is no secret any more: make a new "
                     "one, and `chmod 600` it"));
  }
  if (info.st_size < 1 || static_cast<uint64_t>(info.st_size) > kTrustFileBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        where, ": it has ", info.st_size, " bytes, allowed are 1 to ", kTrustFileBytesMax));
  }
  std::string bytes(static_cast<size_t>(info.st_size), '\0');
  size_t have = 0;
  while (have < bytes.size()) {
    const ssize_t got = ::read(fd.get(), &bytes[have], bytes.size() - have);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoStatus(errno, absl::StrCat(where, ": it can't be read"));
    if (got == 0) break;
    have += static_cast<size_t>(got);
  }
  bytes.resize(have);
  return Secret(std::move(bytes));
}

absl::StatusOr<Secret> ParsePsk(absl::string_view text, const std::string& path) {
  const absl::string_view digits = absl::StripAsciiWhitespace(text);
  std::string key;
  key.reserve(kPskBytesMax);
  bool right = digits.size() % 2 == 0 && digits.size() >= 2 * kPskBytesMin &&
               digits.size() <= 2 * kPskBytesMax;
  for (size_t i = 0; right && i < digits.size(); i += 2) {
    const int high = HexDigit(digits[i]);
    const int low = HexDigit(digits[i + 1]);
    right = high >= 0 && low >= 0;
    key.push_back(static_cast<char>(high << 4 | low));
  }
  Secret parsed(std::move(key));
  if (right) return parsed;
  return absl::InvalidArgumentError(absl::StrCat(
      "the pre-shared key, file ", path, ": wanted is one line of ", 2 * kPskBytesMin, " to ",
      2 * kPskBytesMax, " hexadecimal digits, as `godwit keygen --psk` writes it"));
}

}  // namespace godwit
