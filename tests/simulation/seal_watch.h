// Looks over OpenSSL's shoulder: no two packets may be sealed with the same key and nonce.
#ifndef GODWIT_TESTS_SIMULATION_SEAL_WATCH_H_
#define GODWIT_TESTS_SIMULATION_SEAL_WATCH_H_

#include <cstdint>
#include <string>

namespace godwit::simulation {

struct SealsSeen {
  uint64_t seals = 0;
  std::string repeated;  // the first key and nonce that came twice; "": none
};
// Of this process, whatever its sessions; all that it has seen it keeps.
const SealsSeen& SealsSoFar();

}  // namespace godwit::simulation

#endif  // GODWIT_TESTS_SIMULATION_SEAL_WATCH_H_
