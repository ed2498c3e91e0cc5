// What a session's peer can do, in handshake_fuzz's inputs.
#ifndef GODWIT_TESTS_FUZZ_HANDSHAKE_STEPS_H_
#define GODWIT_TESTS_FUZZ_HANDSHAKE_STEPS_H_

#include <cstdint>

namespace godwit::fuzz {

enum HandshakeStep : uint8_t {
  kSayMessage,  // the bytes, as a control message with the right length
  kSayBytes,    // the bytes, on the control channel
  kHear,        // waits for a control message; the argument is its case
  kOpenLane,    // a new connection that begins with the bytes
  kSayOnLane,   // the bytes, on the lane that the argument says
  kSayFrame,  // a frame, on the lane that bit 0 of the argument says, sealed as its other bits say
  kSteps,
};

}  // namespace godwit::fuzz

#endif  // GODWIT_TESTS_FUZZ_HANDSHAKE_STEPS_H_
