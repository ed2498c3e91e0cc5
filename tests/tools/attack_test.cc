// Goal: whatever strangers do to a target's port before anybody has proven anything, and whatever
// is replayed to it, the target lives within its bounds of memory and file descriptors, and the
// real source gets through. Prints the list of attacks with what came of them: docs/trust.md.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <fstream>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/engine/flood.h"
#include "tests/engine/raw_peer.h"
#include "tests/engine/right_stream.h"
#include "tests/engine/session_world.h"
#include "tests/tools/attack_table.h"
#include "tests/tools/attacked_target.h"

namespace godwit {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr size_t kConnects = 1'000;
constexpr size_t kRssMibMax = 4'096;  // of a sanitizer's shadow, too
#else
constexpr size_t kConnects = 10'000;
constexpr size_t kRssMibMax = 256;  // 64 MiB of arena in it
#endif
// 128 half-open connections, 128 callers, and what a target has anyway.
constexpr size_t kFdsMax = 320;
// 256 lines at once, then ten a second.
constexpr size_t kSaidBytesMax = size_t{128} << 10;

std::string Random(size_t bytes) {
  static std::mt19937 random(/*seed=*/7);
  std::string text(bytes, '\0');
  for (char& c : text) c = static_cast<char>(random());
  return text;
}

class Printer final : public testing::Environment {
 public:
  void TearDown() override { AttackTable::Of().Print(); }
};
const testing::Environment* const kPrinter = testing::AddGlobalTestEnvironment(new Printer);

class AttackTest : public testing::TestWithParam<Secured> {
 protected:
  void SetUp() override {
    rlimit files{};
    ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &files), 0);
    files.rlim_cur = files.rlim_max;
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &files), 0);
    held_max_ = std::min<size_t>(kConnects, files.rlim_cur - 200);
    if (GetParam() == Secured::kTls) {
      trust_.psk_file = absl::StrCat(testing::TempDir(), "/godwit-attack-psk-", ::getpid());
      std::ofstream(trust_.psk_file) << std::string(64, 'a') << "\n";
      ASSERT_EQ(::chmod(trust_.psk_file.c_str(), 0600), 0);
      client_ = TlsContext::Make(trust_, TlsRole::kClient).value();
    }
    target_.emplace(kSpec, trust_.psk_file);
  }
  void TearDown() override {
    if (!trust_.psk_file.empty()) ::unlink(trust_.psk_file.c_str());
  }

  std::string Preface() const {
    return std::string("GODWIT") + (client_ != nullptr ? '\2' : '\0') + '\1';
  }
  UniqueFd ConnectAndSay(absl::string_view bytes) const {
    UniqueFd socket = ConnectTo(target_->port());
    Say(socket.get(), bytes);
    return socket;
  }
  // As a client with the right key begins.
  std::string ClientHello() const {
    const auto stream = client_->NewStream("").value();
    EXPECT_TRUE(stream->Begin().ok());
    std::string bytes;
    stream->MoveOutput(bytes);
    return bytes;
  }
  // The same bytes on `count` connections, one byte of each at a time; they stay.
  std::vector<UniqueFd> ByteByByte(const std::string& first, const std::string& slowly,
                                   size_t count) const {
    std::vector<UniqueFd> sockets;
    for (size_t i = 0; i < count; ++i) sockets.push_back(ConnectAndSay(first));
    for (const char c : slowly) {
      for (const UniqueFd& socket : sockets) Say(socket.get(), {&c, 1});
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return sockets;
  }

  // A real source moves its device now, while what the test holds is held.
  void ExpectTheSourceGetsThrough(const std::string& attack) {
    target_->Look();
    const Devices own({kSpec}, DeviceRole::kSource);
    RecordingObserver observer;
    SourceOptions options = SourceOptionsFor(target_->port());
    options.trust = trust_;
    observer.on_phase = [this](SessionPhase /*phase*/) { target_->Look(); };
    SourceSession source(options, own.pointers(), observer);
    const SessionReport report = source.Run();
    EXPECT_TRUE(report.status.ok()) << report.status;
    own.ExpectAllIn(DeviceState::kStop);
    ExpectItEndedWell(attack);
  }
  void ExpectItEndedWell(const std::string& attack) {
    EXPECT_EQ(target_->Await(), 0) << target_->Said();
    EXPECT_LE(target_->fds(), kFdsMax);
    EXPECT_LE(target_->rss_mib(), kRssMibMax);
    EXPECT_GT(target_->rss_mib(), 0U);
    EXPECT_LE(target_->said_bytes(), kSaidBytesMax);
    AttackTable::Of().Add(
        attack, GetParam(),
        absl::StrCat(HasFailure() ? "FAILED" : "moved", ", ", target_->fds(), " fds, ",
                     target_->rss_mib(), " MiB, ", target_->said_bytes() / 1024, " KiB said"));
  }

  const Watchdog watchdog_{"an attacked target", std::chrono::seconds(200)};
  size_t held_max_ = 0;
  TrustOptions trust_;
  std::unique_ptr<TlsContext> client_;
  std::optional<AttackedTarget> target_;
};

INSTANTIATE_TEST_SUITE_P(, AttackTest, testing::Values(Secured::kPlain, Secured::kTls),
                         [](const auto& secured) {
                           return secured.param == Secured::kPlain ? "Plain" : "InTls";
                         });

// Of what there is inside TLS alone.
class HandshakeAttackTest : public AttackTest {};
INSTANTIATE_TEST_SUITE_P(, HandshakeAttackTest, testing::Values(Secured::kTls),
                         [](const auto& /*secured*/) { return "InTls"; });

TEST_P(AttackTest, NoneToCompareWith) { ExpectTheSourceGetsThrough("none, to compare with"); }

TEST_P(AttackTest, ThousandsOfSilentConnections) {
  std::vector<UniqueFd> held;
  for (size_t i = 0; i < held_max_; ++i) held.push_back(ConnectAndSay(""));
  ExpectTheSourceGetsThrough(absl::StrCat(kConnects, " connections, all held open"));
}

TEST_P(AttackTest, ThousandsThatConnectAndLeave) {
  Flood flood(target_->port(), "", 0);
  flood.AwaitConnects(kConnects);
  ExpectTheSourceGetsThrough(absl::StrCat(kConnects, " that connect and leave, and go on"));
}

TEST_P(AttackTest, ThousandsOfRightPrefaces) {
  Flood flood(target_->port(), Preface(), std::min<size_t>(held_max_, 2'000));
  flood.AwaitConnects(kConnects);
  ExpectTheSourceGetsThrough(absl::StrCat(kConnects, " with the right preface, and go on"));
}

TEST_P(AttackTest, SlowPrefaces) {
  const auto held = ByteByByte("", Preface().substr(0, 7), 200);
  const auto lanes = ByteByByte("GODWITLN", Random(19), 50);
  ExpectTheSourceGetsThrough("250 prefaces byte by byte");
}

TEST_P(AttackTest, SlowMessages) {
  // Inside TLS it is no handshake.
  const auto held = ByteByByte(Preface() + std::string("\0\0\1\0", 4), Random(50), 200);
  ExpectTheSourceGetsThrough("200 first messages byte by byte");
}

TEST_P(AttackTest, Garbage) {
  std::vector<UniqueFd> held;
  const std::string tls12 = std::string("\x16\3\1\0\x2f\1\0\0\x2b\3\3", 11) + Random(32) +
                            std::string("\0\0\2\0\x2f\1\0\0\0", 9);
  for (const std::string& says :
       {std::string("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), 'x' + Random(5'000), tls12,
        std::string("SSH-2.0-OpenSSH_9.2\r\n"), Preface() + Random(5'000), Preface() + tls12,
        Preface() + "\xff\xff\xff\xff", Preface() + std::string(4, '\0'),
        Preface() + std::string("\0\1\0\0", 4) + Random(70'000),
        Preface() + "\x16\3\1\xff\xff" + Random(70'000), "GODWITLN" + Random(20),
        "GODWITLN" + Random(90'000), std::string(100'000, '\0')}) {
    for (int i = 0; i < 20; ++i) {
      held.push_back(ConnectTo(target_->port()));
      // As much as it takes without waiting.
      (void)::send(held.back().get(), says.data(), says.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    }
  }
  ExpectTheSourceGetsThrough("13 kinds of garbage, 20 times each");
}

// A client with the right key whose bytes end after `cut`: whether it got as far.
bool HandshakeCutAt(const TlsContext& tls, const UniqueFd& socket, size_t cut) {
  const auto stream = tls.NewStream("").value();
  size_t said = 0;
  EXPECT_EQ(Hear(socket.get(), 8).size(), 8U);
  absl::Status status = stream->Begin();
  control::ControlMessage hello;
  hello.mutable_hello()->set_session_id("too short");
  bool hello_said = false;
  while (status.ok()) {
    if (stream->established() && !hello_said) {
      const std::string body = hello.SerializeAsString();
      EXPECT_TRUE(stream->Write(wire::BigEndian(body.size(), 4) + body).ok());
      hello_said = true;
    }
    std::string bytes;
    stream->MoveOutput(bytes);
    Say(socket.get(), bytes.substr(0, cut - said));
    said += bytes.size();
    if (said >= cut) return true;
    std::string answer(16'384, '\0');
    const ssize_t got = ::recv(socket.get(), answer.data(), answer.size(), 0);
    if (got <= 0) break;
    std::string plain;
    status = stream->Take(absl::string_view(answer).substr(0, static_cast<size_t>(got)), &plain);
  }
  return false;
}

TEST_P(HandshakeAttackTest, ThatEndTooSoon) {
  // Of the client's bytes: its ClientHello, one record; then ChangeCipherSpec, Finished, and the
  // first message.
  const size_t hello = ClientHello().size();
  std::vector<size_t> cuts = {0, 1, 4, 5, 6, hello / 2, hello - 1, hello};
  for (size_t more = 1; more < 200; more += more < 8 ? 1 : 7) cuts.push_back(hello + more);
  std::vector<UniqueFd> held;
  size_t reached = 0;
  for (const size_t cut : cuts) {
    for (const bool hold : {false, true}) {
      UniqueFd socket = ConnectAndSay(Preface());
      reached += HandshakeCutAt(*client_, socket, cut) ? 1U : 0U;
      if (hold) held.push_back(std::move(socket));
    }
  }
  EXPECT_GE(reached, 20U);
  ExpectTheSourceGetsThrough(
      absl::StrCat("TLS cut at ", cuts.size(), " places, closed or held open"));
}

TEST_P(HandshakeAttackTest, ThatStopAfterTheClientHello) {
  constexpr size_t kHellos = 500;
  std::vector<UniqueFd> held;
  held.reserve(kHellos);
  for (size_t i = 0; i < kHellos; ++i) held.push_back(ConnectAndSay(Preface() + ClientHello()));
  const auto slow = ByteByByte(Preface(), ClientHello().substr(0, 100), 100);
  ExpectTheSourceGetsThrough(
      absl::StrCat(kHellos, " right ClientHellos and no more, 100 byte by byte"));
}

// In a session that runs.
TEST_P(AttackTest, ReplayedLanes) {
  RawSource source(target_->port(), client_.get());
  ASSERT_TRUE(source.OpenLanes());
  std::vector<UniqueFd> held;
  for (int i = 0; i < 300; ++i) {
    held.push_back(ConnectAndSay(source.LanePreface(0) + Random(32)));  // with a proof of another
    held.push_back(ConnectAndSay(source.LanePreface(9, 1) + Random(32)));  // there is none
  }
  target_->Look();
  if (client_ != nullptr) {
    // Whoever can't prove it does not take the lane's place with a new generation either.
    for (uint16_t i = 1; i < 100; ++i) {
      held.push_back(ConnectAndSay(source.LanePreface(0, i) + Random(32)));
    }
  }
  Say(source.lanes[0].get(), OnTheWire(TheFrames()));
  std::optional<control::ControlMessage> message;
  do message = source.channel.Receive();
  while (message.has_value() && (message->has_receipts() || message->has_lane_down()));
  ASSERT_TRUE(message.has_value() && message->has_loaded());
  control::ControlMessage commit;
  commit.mutable_commit();
  source.channel.Send(commit);
  message = source.channel.Receive();
  EXPECT_TRUE(message.has_value() && message->has_done());
  target_->Look();
  control::ControlMessage forget;
  forget.mutable_forget();
  source.channel.Send(forget);
  ExpectItEndedWell("lane prefaces replayed in a running session, 600 times");
}

}  // namespace
}  // namespace godwit
