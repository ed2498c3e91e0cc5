// Goal: in a session inside TLS a host that is believed, but is not one of the session's two, has
// no say in who runs the devices, though it knows the session's id, which lanes send in the clear.
#include <absl/strings/escaping.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <numeric>
#include <string>
#include <utility>

#include "engine/handover_proof.h"
#include "tests/engine/raw_peer.h"
#include "tests/engine/raw_target.h"
#include "tests/engine/right_stream.h"
#include "tests/engine/session_world.h"

namespace godwit {
namespace {

using testing::HasSubstr;

control::ControlMessage CommitWith(const std::string& session_id, const std::string& proof) {
  control::ControlMessage message;
  message.mutable_commit()->set_session_id(session_id);
  message.mutable_commit()->set_proof(proof);
  return message;
}

control::ControlMessage RolledBackWith(const std::string& proof) {
  control::ControlMessage message;
  message.mutable_rolled_back()->set_reason("it would not start");
  message.mutable_rolled_back()->set_proof(proof);
  return message;
}

control::ControlMessage DoneWith(const std::string& proof) {
  control::ControlMessage message;
  message.mutable_done()->set_proof(proof);
  return message;
}

// As Python's hmac has it, of docs/wire-format.md's text.
TEST(HandoverProofTest, IsWhatTheDocumentSays) {
  TrafficKey key;
  std::iota(key.begin(), key.end(), 0);
  const std::pair<HandoverWord, const char*> right[] = {
      {HandoverWord::kCommit, "1d120e129e6c0010ca3caabf1b36e769137ae4fac24d679a19b7194359ed7cc0"},
      {HandoverWord::kDone, "28ee0d37a45896656347c52e85355f448e533a39ab04fd210e8660ac0546feda"},
      {HandoverWord::kRolledBack,
       "85b873361c54930cd456bba964f41dbffb1423d92a0a9549211609b27e9f624f"},
      {HandoverWord::kForget, "d836cf6be0e1b40453909e62338f069f6999c104261eb4ef0194de2c1510bd3b"},
  };
  for (const auto& [word, hex] : right) {
    EXPECT_EQ(absl::BytesToHexString(ProveHandover(key, word)), hex);
    EXPECT_TRUE(IsHandoverProof(absl::HexStringToBytes(hex), key, word));
  }
}

class InsiderTest : public testing::Test {
 protected:
  void SetUp() override {
    trust_.psk_file = absl::StrCat(testing::TempDir(), "/godwit-insider-psk-", ::getpid());
    std::ofstream(trust_.psk_file)
        << "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n";
    ASSERT_EQ(::chmod(trust_.psk_file.c_str(), 0600), 0);
    client_ = TlsContext::Make(trust_, TlsRole::kClient).value();
    server_ = TlsContext::Make(trust_, TlsRole::kServer).value();
  }
  void TearDown() override { ::unlink(trust_.psk_file.c_str()); }

  const Watchdog watchdog_{"a session with an insider"};
  TrustOptions trust_;
  std::unique_ptr<TlsContext> client_;
  std::unique_ptr<TlsContext> server_;
};

TEST_F(InsiderTest, CannotCommitInTheSourcesPlace) {
  const Devices devices({kSpec}, DeviceRole::kTarget);
  TargetOptions options = RunningTarget::DefaultOptions();
  options.arena_bytes = 1;
  options.trust = trust_;
  RunningTarget target(devices.pointers(), options);
  RawSource source(target.Port(), client_.get());
  ASSERT_TRUE(source.OpenLanes());
  const TrafficKey key = source.channel.Key(kHandoverKeyLabel, source.session_id);
  const TrafficKey lane_key = source.channel.Key(kLaneKeyLabel, source.session_id);
  Say(source.lanes[0].get(), OnTheWire(TheFrames()));
  std::optional<control::ControlMessage> message;
  do message = source.channel.Receive();
  while (message.has_value() && message->has_receipts());
  ASSERT_TRUE(message.has_value() && message->has_loaded());

  const std::string right = ProveHandover(key, HandoverWord::kCommit);
  const std::string wrong[] = {"",
                               right.substr(0, 31),
                               right + "0",
                               std::string(32, '\0'),
                               ProveHandover(key, HandoverWord::kDone),
                               ProveHandover(lane_key, HandoverWord::kCommit)};
  const auto call = [&](const std::string& proof) {
    RawChannel caller(ConnectTo(source.port), client_->NewStream(/*peer_name=*/"").value());
    caller.Send(CommitWith(source.session_id, proof));
    return caller;
  };
  for (const std::string& proof : wrong) {
    EXPECT_FALSE(call(proof).Receive().has_value()) << proof.size();
  }
  // With the key of its own connection, which it can have for any session id.
  RawChannel own = call("");
  EXPECT_FALSE(own.Receive().has_value());
  const TrafficKey own_key = own.Key(kHandoverKeyLabel, source.session_id);
  EXPECT_FALSE(call(ProveHandover(own_key, HandoverWord::kCommit)).Receive().has_value());
  devices.ExpectAllIn(DeviceState::kStop);

  RawChannel again = call(right);
  const auto answer = again.Receive();
  ASSERT_TRUE(answer.has_value() && answer->has_done());
  EXPECT_TRUE(IsHandoverProof(answer->done().proof(), key, HandoverWord::kDone));
  // Nor end the answers, though it repeats a Commit that it has overheard.
  control::ControlMessage forget;
  for (const std::string& proof : {std::string(), right}) {
    forget.mutable_forget()->set_proof(proof);
    again.Send(forget);
    again.Send(CommitWith(source.session_id, right));
    const auto still = again.Receive();
    ASSERT_TRUE(still.has_value() && still->has_done());
  }
  forget.mutable_forget()->set_proof(ProveHandover(key, HandoverWord::kForget));
  again.Send(forget);
  EXPECT_EQ(target.Report().outcome, SessionOutcome::kDone) << target.Report().status;
  devices.ExpectAllIn(DeviceState::kRunning);
}

// Whoever answers at the target's address after contact was lost.
TEST_F(InsiderTest, CannotTellTheSourceHowItEnded) {
  const Devices devices({kSpec}, DeviceRole::kSource);
  RawTarget target;
  target.tls = server_.get();
  const auto act = [&](RawTarget& t) {
    t.Ready();
    t.SendLoaded(16, Digest(t));
    t.HearCommit();
    const TrafficKey key = t.channel.Key(kHandoverKeyLabel, t.session_id);
    t.channel.Hang();
    for (const auto& answer :
         {RolledBackWith(""), RolledBackWith(ProveHandover(key, HandoverWord::kDone)),
          RolledBackWith(ProveHandover(key, HandoverWord::kCommit)), DoneWith(""),
          DoneWith(ProveHandover(key, HandoverWord::kRolledBack)), RolledBackWith("right")}) {
      t.channel = t.AcceptChannel();
      const auto asked = t.channel.Receive();
      ASSERT_TRUE(asked.has_value() && asked->has_commit());
      EXPECT_TRUE(IsHandoverProof(asked->commit().proof(), key, HandoverWord::kCommit));
      devices.ExpectAllIn(DeviceState::kStop);
      if (answer.rolled_back().proof() == "right") break;
      t.channel.Send(answer);
      EXPECT_FALSE(t.channel.Receive().has_value());  // no Forget: it goes on asking
    }
    t.channel.Send(RolledBackWith(ProveHandover(key, HandoverWord::kRolledBack)));
    const auto forget = t.channel.Receive();
    ASSERT_TRUE(forget.has_value() && forget->has_forget());
    EXPECT_TRUE(IsHandoverProof(forget->forget().proof(), key, HandoverWord::kForget));
  };
  const SessionReport report = RunSource(devices, target, act, std::chrono::seconds(60), trust_);
  EXPECT_EQ(report.outcome, SessionOutcome::kRolledBack);
  EXPECT_THAT(std::string(report.status.message()), HasSubstr("it would not start"));
  devices.ExpectAllIn(DeviceState::kRunning);
}

// Its answer that never proves itself is none: the devices stay stopped.
TEST_F(InsiderTest, LeavesTheSourceInDoubtAtMost) {
  const Devices devices({kSpec}, DeviceRole::kSource);
  RawTarget target;
  target.tls = server_.get();
  const auto act = [&](RawTarget& t) {
    t.Ready();
    t.SendLoaded(16, Digest(t));
    t.HearCommit();
    t.channel.Send(RolledBackWith(""));  // on the session's own connection, too
    EXPECT_FALSE(t.channel.Receive().has_value());
    t.listener.Reset();
  };
  const SessionReport report =
      RunSource(devices, target, act, std::chrono::milliseconds(500), trust_);
  EXPECT_EQ(report.outcome, SessionOutcome::kInDoubt) << report.status;
  devices.ExpectAllIn(DeviceState::kStop);
}

}  // namespace
}  // namespace godwit
