// CRC-32C (Castagnoli, as in iSCSI, RFC 3720 appendix B.4), by ISA-L.
#ifndef GODWIT_BASE_CRC32C_H_
#define GODWIT_BASE_CRC32C_H_

#include <absl/types/span.h>

#include <cstddef>
#include <cstdint>

namespace godwit {

inline constexpr uint32_t kCrc32cOfNothing = 0;

// The CRC-32C of A‖`bytes`, given `crc` = the CRC-32C of A. Crc32cExtend(kCrc32cOfNothing, x) is
// the CRC of x; of "123456789" that is 0xe3069283.
uint32_t Crc32cExtend(uint32_t crc, absl::Span<const std::byte> bytes);

}  // namespace godwit

#endif  // GODWIT_BASE_CRC32C_H_
