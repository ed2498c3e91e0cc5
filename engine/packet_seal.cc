#include "engine/packet_seal.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "base/check.h"
#include "engine/packet.h"

namespace godwit {
namespace {

constexpr size_t kNonceBytes = 12;
constexpr size_t kAssociatedBytes = kFrameHeaderBytes + sizeof(uint16_t);
static_assert(kHeaderCrcAt + 4 <= kFrameHeaderBytes);
// The payload begins where a block of the cipher does.
static_assert(kSealedBytes % 16 == 0 && kSealedAt + kSealedBytes == kSealTagAt);

unsigned char* Bytes(std::byte* bytes) { return reinterpret_cast<unsigned char*>(bytes); }

// Device, index and epoch: a packet is sent once with each epoch.
std::array<unsigned char, kNonceBytes> NonceOf(const std::byte* header) {
  std::array<unsigned char, kNonceBytes> nonce{};
  std::memcpy(&nonce[0], header + kDeviceAt, 2);
  std::memcpy(&nonce[2], header + kIndexAt, 4);
  std::memcpy(&nonce[6], header + kEpochAt, 4);
  return nonce;
}

// The header but for what is hidden, the tag and the header CRC, which come later; and the lane.
std::array<unsigned char, kAssociatedBytes> AssociatedWith(const std::byte* header, uint16_t lane) {
  std::array<unsigned char, kAssociatedBytes> data;
  std::memcpy(data.data(), header, kFrameHeaderBytes);
  std::fill_n(&data[kSealedAt], kSealedBytes + kSealTagBytes, 0);
  std::fill_n(&data[kHeaderCrcAt], 4, 0);
  data[kFrameHeaderBytes] = static_cast<unsigned char>(lane >> 8);
  data[kFrameHeaderBytes + 1] = static_cast<unsigned char>(lane);
  return data;
}

}  // namespace

absl::StatusOr<std::unique_ptr<PacketSeal>> PacketSeal::Make(const TrafficKey& key) {
  std::unique_ptr<PacketSeal> seal(new PacketSeal(EVP_CIPHER_CTX_new(), EVP_CIPHER_CTX_new()));
  if (seal->sealing_ != nullptr && seal->opening_ != nullptr &&
      EVP_EncryptInit_ex(seal->sealing_, EVP_aes_256_gcm(), nullptr, key.data(), nullptr) == 1 &&
      EVP_DecryptInit_ex(seal->opening_, EVP_aes_256_gcm(), nullptr, key.data(), nullptr) == 1) {
    return seal;
  }
  ERR_clear_error();
  return absl::InternalError("OpenSSL has no AES-256-GCM here");
}

PacketSeal::~PacketSeal() {
  EVP_CIPHER_CTX_free(sealing_);
  EVP_CIPHER_CTX_free(opening_);
}

// HOT PATH from here on. That OpenSSL has memory and takes what is in bounds is not for a peer to
// decide.
void PacketSeal::Seal(uint16_t lane, const Buffer& packet) {
  std::byte* const header = packet.header(kFrameHeaderBytes);
  const auto nonce = NonceOf(header);
  const auto associated = AssociatedWith(header, lane);
  const int payload_bytes = static_cast<int>(packet.payload_bytes());
  unsigned char* const hidden = Bytes(header + kSealedAt);
  unsigned char* const payload = Bytes(packet.payload());
  unsigned char rest[kSealTagBytes];
  int done = 0;
  const bool sealed =
      EVP_EncryptInit_ex(sealing_, nullptr, nullptr, nullptr, nonce.data()) == 1 &&
      EVP_EncryptUpdate(sealing_, nullptr, &done, associated.data(),
                        static_cast<int>(associated.size())) == 1 &&
      EVP_EncryptUpdate(sealing_, hidden, &done, hidden, kSealedBytes) == 1 &&
      EVP_EncryptUpdate(sealing_, payload, &done, payload, payload_bytes) == 1 &&
      EVP_EncryptFinal_ex(sealing_, rest, &done) == 1 &&
      EVP_CIPHER_CTX_ctrl(sealing_, EVP_CTRL_AEAD_GET_TAG, kSealTagBytes, header + kSealTagAt) == 1;
  GODWIT_CHECK(sealed);
  WriteHeaderCrc(header);
}

absl::Status PacketSeal::Open(uint16_t lane, const Buffer& packet) {
  std::byte* const header = packet.header(kFrameHeaderBytes);
  const auto nonce = NonceOf(header);
  const auto associated = AssociatedWith(header, lane);
  const int payload_bytes = static_cast<int>(packet.payload_bytes());
  unsigned char* const hidden = Bytes(header + kSealedAt);
  unsigned char* const payload = Bytes(packet.payload());
  unsigned char rest[kSealTagBytes];
  int done = 0;
  const bool taken =
      EVP_DecryptInit_ex(opening_, nullptr, nullptr, nullptr, nonce.data()) == 1 &&
      EVP_DecryptUpdate(opening_, nullptr, &done, associated.data(),
                        static_cast<int>(associated.size())) == 1 &&
      EVP_DecryptUpdate(opening_, hidden, &done, hidden, kSealedBytes) == 1 &&
      EVP_DecryptUpdate(opening_, payload, &done, payload, payload_bytes) == 1 &&
      EVP_CIPHER_CTX_ctrl(opening_, EVP_CTRL_AEAD_SET_TAG, kSealTagBytes, header + kSealTagAt) == 1;
  GODWIT_CHECK(taken);
  if (EVP_DecryptFinal_ex(opening_, rest, &done) == 1) return absl::OkStatus();
  ERR_clear_error();
  return absl::DataLossError("a frame's seal does not open: it was changed on the way");
}

}  // namespace godwit
