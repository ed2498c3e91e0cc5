// What proves to know a key of the session's.
#ifndef GODWIT_TRANSPORT_HMAC_H_
#define GODWIT_TRANSPORT_HMAC_H_

#include <absl/strings/string_view.h>

#include <array>
#include <cstddef>

#include "transport/tls/tls_stream.h"

namespace godwit {

inline constexpr size_t kHmacBytes = 32;
using Hmac = std::array<char, kHmacBytes>;

// HMAC-SHA256 (RFC 2104).
Hmac HmacSha256(const TrafficKey& key, absl::string_view text);
// In the same time for every wrong one of that length.
bool IsHmac(absl::string_view claimed, const Hmac& right);

}  // namespace godwit

#endif  // GODWIT_TRANSPORT_HMAC_H_
