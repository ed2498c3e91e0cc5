#include "tests/simulation/seal_watch.h"

#include <absl/strings/escaping.h>
#include <absl/strings/str_cat.h>
#include <dlfcn.h>
#include <openssl/evp.h>

#include <cstddef>
#include <map>
#include <set>
#include <utility>

#include "base/check.h"

namespace godwit::simulation {
namespace {

constexpr size_t kKeyBytes = 32;
constexpr size_t kNonceBytes = 12;

struct Watch {
  std::map<const EVP_CIPHER_CTX*, std::string> keys;
  std::set<std::pair<std::string, std::string>> seen;
  SealsSeen so_far;
};
Watch& TheWatch() {
  static auto* const watch = new Watch();
  return *watch;
}

std::string Text(const unsigned char* bytes, size_t count) {
  return {reinterpret_cast<const char*>(bytes), count};
}

void Note(const EVP_CIPHER_CTX* context, const unsigned char* nonce_bytes) {
  Watch& watch = TheWatch();
  const auto key = watch.keys.find(context);
  if (key == watch.keys.end()) return;
  ++watch.so_far.seals;
  const std::string nonce = Text(nonce_bytes, kNonceBytes);
  if (watch.seen.emplace(key->second, nonce).second || !watch.so_far.repeated.empty()) return;
  watch.so_far.repeated =
      absl::StrCat("nonce ", absl::BytesToHexString(nonce), " was used twice with one key");
}

}  // namespace

const SealsSeen& SealsSoFar() { return TheWatch().so_far; }

}  // namespace godwit::simulation

// NOLINTBEGIN(readability-inconsistent-declaration-parameter-name): OpenSSL calls them otherwise.
// In front of OpenSSL's: first it is given cipher and key, then a nonce for each packet. (TLS
// itself uses another function.)
extern "C" int EVP_EncryptInit_ex(EVP_CIPHER_CTX* context, const EVP_CIPHER* cipher, ENGINE* engine,
                                  const unsigned char* key, const unsigned char* nonce) {
  static const auto real =
      reinterpret_cast<decltype(&EVP_EncryptInit_ex)>(::dlsym(RTLD_NEXT, "EVP_EncryptInit_ex"));
  GODWIT_CHECK(real != nullptr);
  using godwit::simulation::kKeyBytes;
  if (cipher != nullptr && key != nullptr && EVP_CIPHER_is_a(cipher, "AES-256-GCM") == 1) {
    godwit::simulation::TheWatch().keys[context] = godwit::simulation::Text(key, kKeyBytes);
  }
  if (cipher == nullptr && nonce != nullptr) godwit::simulation::Note(context, nonce);
  return real(context, cipher, engine, key, nonce);
}
// NOLINTEND(readability-inconsistent-declaration-parameter-name)
