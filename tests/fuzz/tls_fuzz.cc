// TLS before and after anybody is believed: bytes that are nobody's handshake are never believed
// and give no message, however they are cut; and whoever sits between two right ends and changes,
// drops, repeats or inserts bytes can end the connection, but never make one end hear what the
// other has not said.
//
// Input: a byte of flags, then with
//   kStranger  cuts (fuzz_input.h) and the stranger's bytes
//   else       steps: what (a byte), its argument (a byte), as many bytes
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/clock.h"
#include "tests/fuzz/fuzz_input.h"
#include "tools/key_maker.h"
#include "transport/control.pb.h"
#include "transport/control_channel.h"
#include "transport/tls/tls_context.h"

namespace godwit::fuzz {
namespace {

constexpr uint8_t kStranger = 1U << 0;
constexpr uint8_t kToClient = 1U << 1;      // else to the server
constexpr uint8_t kCertificates = 1U << 2;  // else a pre-shared key
constexpr uint8_t kInChannel = 1U << 3;     // a stranger's bytes go to a whole ControlChannel
constexpr size_t kStepsMax = 64;
constexpr size_t kWireBytesMax = size_t{64} << 10;  // that are repeated

// A file that is in no folder.
std::string FileWith(const std::string& text) {
  const int fd = ::memfd_create("godwit-fuzz", MFD_CLOEXEC);
  GODWIT_CHECK(fd >= 0 && ::fchmod(fd, 0600) == 0);
  GODWIT_CHECK(::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
  return "/proc/self/fd/" + std::to_string(fd);
}

// Both ends' contexts, for good.
struct Contexts {
  std::unique_ptr<TlsContext> client;
  std::unique_ptr<TlsContext> server;
};

const Contexts& PskContexts() {
  static const Contexts contexts = [] {
    TrustOptions trust;
    trust.psk_file = FileWith(std::string(64, 'a') + "\n");
    return Contexts{TlsContext::Make(trust, TlsRole::kClient).value(),
                    TlsContext::Make(trust, TlsRole::kServer).value()};
  }();
  return contexts;
}

const Contexts& CertificateContexts() {
  static const Contexts contexts = [] {
    constexpr int kDays = 365;
    const Identity authority = MakeAuthority(kDays).value();
    const Identity host = MakeIdentity(authority, "host", {"host.example"}, kDays).value();
    TrustOptions trust;
    trust.certificate_file = FileWith(CertificatePem(host).value());
    trust.key_file = FileWith(KeyPem(host).value());
    trust.ca_file = FileWith(CertificatePem(authority).value());
    return Contexts{TlsContext::Make(trust, TlsRole::kClient).value(),
                    TlsContext::Make(trust, TlsRole::kServer).value()};
  }();
  return contexts;
}

std::unique_ptr<TlsStream> NewStream(uint8_t flags, bool client) {
  const Contexts& contexts = (flags & kCertificates) != 0 ? CertificateContexts() : PskContexts();
  return (client ? contexts.client : contexts.server)
      ->NewStream(client ? "host.example" : "")
      .value();
}

// Once an error, always that error, and nothing is heard.
void CheckFinal(TlsStream& stream, const absl::Status& error) {
  std::string plain;
  GODWIT_CHECK(stream.Take("x", &plain) == error && plain.empty());
}

void StreamMeetsStranger(uint8_t flags, absl::string_view bytes, const std::vector<size_t>& cuts) {
  const auto stream = NewStream(flags, (flags & kToClient) != 0);
  if ((flags & kToClient) != 0) GODWIT_CHECK(stream->Begin().ok());
  absl::Status error;
  std::string plain;
  InPieces(bytes, cuts, [&](absl::string_view piece) {
    if (error.ok()) error = stream->Take(piece, &plain);
    GODWIT_CHECK(plain.empty() && !stream->established() && !stream->peer_ended());
  });
  if (!error.ok()) CheckFinal(*stream, error);
  std::string answer;
  stream->MoveOutput(answer);
  GODWIT_CHECK(answer.size() <= TlsStream::kHandshakeBytesMax);
}

void ChannelMeetsStranger(uint8_t flags, absl::string_view bytes, const std::vector<size_t>& cuts) {
  std::array<int, 2> fds{};
  GODWIT_CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds.data()) == 0);
  const UniqueFd peer(fds[1]);
  const ManualClock clock;
  const bool client = (flags & kToClient) != 0;
  ControlChannel channel(UniqueFd(fds[0]), "the fuzzer", /*expect_preface=*/client,
                         NewStream(flags, client), clock);
  control::ControlMessage secret;
  secret.mutable_abort()->set_reason("for who is believed");
  GODWIT_CHECK(channel.Send(secret).ok());
  absl::Status error;
  const auto listen = [&] {
    const auto message = channel.Receive();
    GODWIT_CHECK(!channel.authenticated() && (!message.ok() || !message->has_value()));
    error = message.status();
  };
  InPieces(bytes, cuts, [&](absl::string_view piece) {
    if (!error.ok()) return;
    (void)::send(peer.get(), piece.data(), piece.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    listen();
  });
  ::shutdown(peer.get(), SHUT_WR);
  if (error.ok()) listen();
  GODWIT_CHECK(!error.ok() && channel.Receive().status() == error);
  // What waits for who is believed was not said.
  std::string heard(1 << 16, '\0');
  const ssize_t got = ::recv(peer.get(), heard.data(), heard.size(), MSG_DONTWAIT);
  heard.resize(got > 0 ? static_cast<size_t>(got) : 0);
  GODWIT_CHECK(heard.find("believed") == std::string::npos);
}

// One end of a connection that somebody sits on.
struct End {
  std::unique_ptr<TlsStream> stream;
  std::string said;   // so far
  std::string heard;  // as far
  std::string wire;   // its bytes, with whoever is between
  absl::Status error;

  void Say(absl::string_view plain) {
    if (!error.ok() || !stream->established() || stream->ended()) return;
    said.append(plain.data(), plain.size());
    GODWIT_CHECK(stream->Write(plain).ok());
    stream->MoveOutput(wire);
  }
  void Take(absl::string_view bytes) {
    if (!error.ok()) return;
    error = stream->Take(bytes, &heard);
    stream->MoveOutput(wire);
    if (!error.ok()) CheckFinal(*stream, error);
  }
};

enum Step : uint8_t { kPass, kPassSome, kChange, kDrop, kRepeat, kInsert, kSay, kEnd, kSteps };

void Between(uint8_t flags, FuzzInput& input) {
  std::array<End, 2> ends;
  for (const bool client : {false, true}) ends[client ? 1 : 0].stream = NewStream(flags, client);
  GODWIT_CHECK(ends[1].stream->Begin().ok());
  ends[1].stream->MoveOutput(ends[1].wire);
  bool touched = false;
  for (size_t step = 0; step < kStepsMax && !input.empty(); ++step) {
    const uint8_t what = input.Byte();
    const size_t argument = input.Byte();
    End& from = ends[what >> 7];
    End& to = ends[1 - (what >> 7)];
    const size_t at = from.wire.empty() ? 0 : argument * from.wire.size() / 256;
    switch ((what & 0x7f) % kSteps) {
      case kPass:
        to.Take(std::exchange(from.wire, ""));
        break;
      case kPassSome: {
        const std::string some = from.wire.substr(0, argument);
        from.wire.erase(0, some.size());
        to.Take(some);
        break;
      }
      case kChange: {
        const uint8_t by = input.Byte();
        if (from.wire.empty() || by == 0) break;
        from.wire[at] = static_cast<char>(from.wire[at] ^ by);
        touched = true;
        break;
      }
      case kDrop:
        touched = touched || !from.wire.empty();
        from.wire.erase(at, input.Byte());
        break;
      case kRepeat:
        if (from.wire.size() > kWireBytesMax) break;
        touched = touched || !from.wire.empty();
        from.wire += from.wire.substr(at);
        break;
      case kInsert: {
        const absl::string_view bytes = input.Take(argument);
        touched = touched || !bytes.empty();
        from.wire.insert(0, std::string(bytes));
        break;
      }
      case kSay:
        from.Say(input.Take(argument));
        break;
      default:
        from.stream->End();
        from.stream->MoveOutput(from.wire);
        break;
    }
    // Nobody hears what was not said, or in another order.
    for (size_t i = 0; i < 2; ++i) {
      GODWIT_CHECK(ends[1 - i].said.compare(0, ends[i].heard.size(), ends[i].heard) == 0);
      GODWIT_CHECK(!ends[i].stream->peer_ended() || ends[1 - i].stream->ended());
    }
  }
  if (touched) return;
  // Where nobody touched anything they meet, and hear all of it.
  for (int round = 0; round < 8; ++round) {
    for (size_t i = 0; i < 2; ++i) ends[1 - i].Take(std::exchange(ends[i].wire, ""));
  }
  for (size_t i = 0; i < 2; ++i) {
    GODWIT_CHECK(ends[i].error.ok() && ends[i].stream->established());
    GODWIT_CHECK(ends[i].heard == ends[1 - i].said);
  }
}

void Run(FuzzInput input) {
  const uint8_t flags = input.Byte();
  if ((flags & kStranger) == 0) return Between(flags, input);
  const std::vector<size_t> cuts = input.Cuts();
  if ((flags & kInChannel) != 0) return ChannelMeetsStranger(flags, input.Rest(), cuts);
  StreamMeetsStranger(flags, input.Rest(), cuts);
}

}  // namespace
}  // namespace godwit::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  godwit::fuzz::Run({data, size});
  return 0;
}
