// Reading keys and certificates.
#ifndef GODWIT_TRANSPORT_TLS_SECRET_FILE_H_
#define GODWIT_TRANSPORT_TLS_SECRET_FILE_H_

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <string>
#include <utility>

namespace godwit {

inline constexpr size_t kTrustFileBytesMax = size_t{1} << 20;
inline constexpr size_t kPskBytesMin = 32;
inline constexpr size_t kPskBytesMax = 64;

// Bytes that are overwritten before their memory is given back.
class Secret {
 public:
  explicit Secret(std::string bytes) : bytes_(std::move(bytes)) {}
  ~Secret() { Wipe(); }
  Secret(Secret&& other) noexcept : bytes_(std::move(other.bytes_)) { other.Wipe(); }
  Secret& operator=(Secret&&) = delete;
  absl::string_view view() const { return bytes_; }

 private:
  void Wipe();
  std::string bytes_;
};

enum class FileIs { kPublic, kSecret };
// All of a regular file of 1 byte to kTrustFileBytesMax. `what` begins every error: "the key". A
// secret that others than owner and group may read or write is refused (PermissionDenied): whoever
// could have it may be the peer.
absl::StatusOr<Secret> ReadTrustFile(const std::string& path, absl::string_view what, FileIs is);

// The bytes that a pre-shared key file says. InvalidArgument, never with the file's text.
absl::StatusOr<Secret> ParsePsk(absl::string_view text, const std::string& path);

}  // namespace godwit

#endif  // GODWIT_TRANSPORT_TLS_SECRET_FILE_H_
