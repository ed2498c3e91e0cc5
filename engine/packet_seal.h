// Packets that only the two ends of a session can read or make: docs/wire-format.md, section 1,
// "Sealed frames".
#ifndef GODWIT_ENGINE_PACKET_SEAL_H_
#define GODWIT_ENGINE_PACKET_SEAL_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <openssl/types.h>

#include <cstdint>
#include <memory>

#include "base/arena.h"
#include "transport/tls/tls_stream.h"

namespace godwit {

// What the TLS exporter is asked for.
inline constexpr absl::string_view kPacketKeyLabel = "EXPORTER-godwit-packets";
inline constexpr size_t kSealTagBytes = 16;

// AES-256-GCM over a packet where it lies: header just before payload, in one Buffer.
//
// Ownership: borrows the Buffer for the call.
// Threads:   single-threaded.
// Blocking:  never; and no call but Make() allocates.
// Errors:    DataLoss: it does not open. Then nothing in the Buffer may be believed.
class PacketSeal {
 public:
  static absl::StatusOr<std::unique_ptr<PacketSeal>> Make(const TrafficKey& key);
  ~PacketSeal();
  PacketSeal(const PacketSeal&) = delete;
  PacketSeal& operator=(const PacketSeal&) = delete;

  // The header is in place, as EncodePacketHeader() writes that of a sealed packet. REQUIRES: no
  // packet of this device, index and epoch was sealed before, as their three make the nonce
  void Seal(uint16_t lane, const Buffer& packet);
  // The reverse. `lane` is where it came from, or was to go.
  absl::Status Open(uint16_t lane, const Buffer& packet);

 private:
  PacketSeal(EVP_CIPHER_CTX* sealing, EVP_CIPHER_CTX* opening)
      : sealing_(sealing), opening_(opening) {}

  EVP_CIPHER_CTX* const sealing_;
  EVP_CIPHER_CTX* const opening_;
};

}  // namespace godwit

#endif  // GODWIT_ENGINE_PACKET_SEAL_H_
