// Goal: a control channel inside TLS carries messages between two sides that believe each other,
// and nothing at all between others; each of them is told why in words that help.
#include <absl/strings/str_cat.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <utility>

#include "tools/key_maker.h"
#include "transport/control.pb.h"
#include "transport/control_channel.h"
#include "transport/tls/tls_context.h"

namespace godwit {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

control::ControlMessage Saying(const std::string& reason) {
  control::ControlMessage message;
  message.mutable_abort()->set_reason(reason);
  return message;
}

// One end: a channel, and what it came to.
struct End {
  std::unique_ptr<ControlChannel> channel;
  std::string heard;
  std::string error;

  void Listen() {
    if (!error.empty()) return;
    const auto message = channel->Receive();
    if (!message.ok()) {
      error = std::string(message.status().message());
    } else if (message->has_value()) {
      heard += (*message)->abort().reason();
    }
  }
};

class TlsTest : public testing::Test {
 protected:
  static constexpr int kDays = 1;

  void SetUp() override {
    folder_ = absl::StrCat(testing::TempDir(), "/godwit-tls-", ::getpid());
    std::filesystem::remove_all(folder_);
    ASSERT_TRUE(std::filesystem::create_directory(folder_));
    authority_ = Made(MakeAuthority(kDays));
    other_authority_ = Made(MakeAuthority(kDays));
    Write("ca.pem", *CertificatePem(authority_));
    Write("other-ca.pem", *CertificatePem(other_authority_));
    MakeFiles("source", authority_, {"source.example"}, kDays);
    MakeFiles("target", authority_, {"target.example", "10.0.0.2", "fd00::2"}, kDays);
    MakeFiles("expired", authority_, {"target.example"}, 0);
    MakeFiles("other", other_authority_, {"target.example"}, kDays);
    Write("psk", absl::StrCat(Digits(64), "\n"));
    Write("other-psk", absl::StrCat(Digits(63), "b\n"));
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  static std::string Digits(size_t count) {
    std::string digits;
    digits.resize(count, 'a');
    return digits;
  }
  static Identity Made(absl::StatusOr<Identity> made) {
    EXPECT_TRUE(made.ok()) << made.status();
    return *std::move(made);
  }
  std::string Path(const std::string& name) const { return absl::StrCat(folder_, "/", name); }
  void Write(const std::string& name, const std::string& text) const {
    const absl::Status written = WriteNewFile(Path(name), text);
    EXPECT_TRUE(written.ok()) << written;
  }
  void MakeFiles(const std::string& name, const Identity& authority,
                 const std::vector<std::string>& names, int days) const {
    const Identity made = Made(MakeIdentity(authority, name, names, days));
    Write(absl::StrCat(name, ".pem"), *CertificatePem(made));
    Write(absl::StrCat(name, ".key"), *KeyPem(made));
  }
  TrustOptions With(const std::string& name, const std::string& ca = "ca.pem") const {
    TrustOptions trust;
    trust.certificate_file = Path(absl::StrCat(name, ".pem"));
    trust.key_file = Path(absl::StrCat(name, ".key"));
    trust.ca_file = Path(ca);
    return trust;
  }
  TrustOptions WithPsk(const std::string& name) const {
    TrustOptions trust;
    trust.psk_file = Path(name);
    return trust;
  }
  absl::Status Refusal(const TrustOptions& trust) const {
    return TlsContext::Make(trust, TlsRole::kClient).status();
  }

  // Both ends say something at once, and the bytes go to and fro until nothing more comes. The
  // target's has read the source's preface, as a rendezvous does.
  void Meet(const TrustOptions& source, const TrustOptions& target,
            const std::string& name = "target.example", const std::string& target_expects = "") {
    int fds[2] = {-1, -1};
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    auto client = TlsContext::Make(source, TlsRole::kClient);
    auto server = TlsContext::Make(target, TlsRole::kServer);
    ASSERT_TRUE(client.ok()) << client.status();
    ASSERT_TRUE(server.ok()) << server.status();
    source_.channel = std::make_unique<ControlChannel>(UniqueFd(fds[0]), "the target", true,
                                                       Stream(*client, name));
    ASSERT_TRUE(source_.channel->Flush().ok());
    char preface[kControlPrefaceBytes];
    ASSERT_EQ(::recv(fds[1], preface, sizeof(preface), 0), ssize_t{sizeof(preface)});
    ASSERT_TRUE(ClassifyPreface(preface, target.kind()).ok());
    target_.channel = std::make_unique<ControlChannel>(UniqueFd(fds[1]), "the source", false,
                                                       Stream(*server, target_expects));
    (void)source_.channel->Send(Saying("hello"));
    (void)target_.channel->Send(Saying("welcome"));
    for (int round = 0; round < 8; ++round) {
      source_.Listen();
      target_.Listen();
    }
  }
  static std::unique_ptr<TlsStream> Stream(const std::unique_ptr<TlsContext>& context,
                                           const std::string& name) {
    if (context == nullptr) return nullptr;
    auto stream = context->NewStream(name);
    EXPECT_TRUE(stream.ok()) << stream.status();
    return *std::move(stream);
  }
  void ExpectBelieved() const {
    EXPECT_EQ(target_.heard, "hello") << target_.error;
    EXPECT_EQ(source_.heard, "welcome") << source_.error;
    EXPECT_TRUE(source_.channel->authenticated() && target_.channel->authenticated());
  }
  void ExpectNothingHeard() const {
    EXPECT_THAT(source_.heard, IsEmpty());
    EXPECT_THAT(target_.heard, IsEmpty());
  }

  std::string folder_;
  Identity authority_;
  Identity other_authority_;
  End source_;
  End target_;
};

TEST_F(TlsTest, CertificatesOfOneAuthorityBelieveEachOther) {
  Meet(With("source"), With("target"));
  ExpectBelieved();
}

TEST_F(TlsTest, ANameMayBeAnAddressOfEitherFamily) {
  for (const std::string name : {"10.0.0.2", "fd00::2", "fd00:0::2"}) {
    source_ = {};
    target_ = {};
    Meet(With("source"), With("target"), name);
    ExpectBelieved();
  }
}

TEST_F(TlsTest, OnePreSharedKeyBelievesItself) {
  Meet(WithPsk("psk"), WithPsk("psk"));
  ExpectBelieved();
}

TEST_F(TlsTest, BothEndsExportTheSameKeyAndNoTwoConnectionsDo) {
  std::vector<TrafficKey> keys;
  for (int connection = 0; connection < 2; ++connection) {
    source_ = {};
    target_ = {};
    Meet(WithPsk("psk"), WithPsk("psk"));
    ExpectBelieved();
    for (const char* const label : {"one", "two"}) {
      const auto ours = source_.channel->ExportKey(label, "session");
      const auto theirs = target_.channel->ExportKey(label, "session");
      ASSERT_TRUE(ours.ok() && theirs.ok());
      EXPECT_EQ(*ours, *theirs);
      keys.push_back(*ours);
    }
    keys.push_back(*source_.channel->ExportKey("one", "another"));
  }
  for (size_t i = 0; i < keys.size(); ++i) {
    for (size_t k = 0; k < i; ++k) EXPECT_NE(keys[i], keys[k]) << i << ", " << k;
  }
}

TEST_F(TlsTest, ACertificateOfAnotherAuthorityIsRefusedByTheSource) {
  Meet(With("source"), With("other", "ca.pem"));
  ExpectNothingHeard();
  EXPECT_THAT(source_.error,
              AllOf(HasSubstr("its certificate is refused"), HasSubstr("from the CA in --tls-ca")));
  EXPECT_THAT(target_.error, AllOf(HasSubstr("it refuses our certificate"), HasSubstr("CA")));
}

TEST_F(TlsTest, ACertificateOfAnotherAuthorityIsRefusedByTheTarget) {
  Meet(With("other", "ca.pem"), With("target"));
  EXPECT_THAT(target_.heard, IsEmpty());
  EXPECT_THAT(target_.error,
              AllOf(HasSubstr("its certificate is refused"), HasSubstr("from the CA in --tls-ca")));
  EXPECT_THAT(source_.error, AllOf(HasSubstr("it refuses our certificate"), HasSubstr("CA")));
}

TEST_F(TlsTest, AnExpiredCertificateIsRefusedByEither) {
  Meet(With("source"), With("expired"));
  ExpectNothingHeard();
  EXPECT_THAT(source_.error, AllOf(HasSubstr("expired"), HasSubstr("clocks")));
  EXPECT_THAT(target_.error, AllOf(HasSubstr("not valid now"), HasSubstr("clocks")));
  source_ = {};
  target_ = {};
  Meet(With("expired"), With("target"));
  EXPECT_THAT(target_.heard, IsEmpty());
  EXPECT_THAT(target_.error, AllOf(HasSubstr("expired"), HasSubstr("clocks")));
  EXPECT_THAT(source_.error, AllOf(HasSubstr("not valid now"), HasSubstr("clocks")));
}

TEST_F(TlsTest, AnotherNameIsRefusedWithTheNamesThatItHas) {
  for (const std::string name : {"elsewhere.example", "10.0.0.3"}) {
    source_ = {};
    target_ = {};
    Meet(With("source"), With("target"), name);
    ExpectNothingHeard();
    EXPECT_THAT(source_.error, HasSubstr(absl::StrCat(
                                   "it is for target.example, 10.0.0.2, fd00::2, not for ", name)));
    EXPECT_THAT(target_.error, HasSubstr("the name that the other side expects"));
  }
}

TEST_F(TlsTest, ATargetMayExpectAName) {
  Meet(With("source"), With("target"), "target.example", "source.example");
  ExpectBelieved();
  source_ = {};
  target_ = {};
  Meet(With("source"), With("target"), "target.example", "elsewhere.example");
  EXPECT_THAT(target_.heard, IsEmpty());
  EXPECT_THAT(target_.error, HasSubstr("it is for source.example, not for elsewhere.example"));
}

TEST_F(TlsTest, AnotherPreSharedKeyIsRefused) {
  Meet(WithPsk("psk"), WithPsk("other-psk"));
  ExpectNothingHeard();
  EXPECT_THAT(target_.error, HasSubstr("it has another pre-shared key: give both hosts the same"));
  EXPECT_THAT(source_.error, HasSubstr("it refuses our pre-shared key: give both hosts the same"));
}

// A server that has no key could still show a certificate, and needs none for that.
TEST_F(TlsTest, ASourceWithAPreSharedKeyBelievesNoCertificate) {
  int fds[2] = {-1, -1};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
  auto client = TlsContext::Make(WithPsk("psk"), TlsRole::kClient);
  auto server = TlsContext::Make(With("target"), TlsRole::kServer);
  ASSERT_TRUE(client.ok() && server.ok());
  const auto source = Stream(*client, "");
  const auto target = Stream(*server, "");
  ASSERT_TRUE(source->Begin().ok());
  std::string to_target;
  source->MoveOutput(to_target);
  std::string plain;
  (void)target->Take(to_target, &plain);
  std::string to_source;
  target->MoveOutput(to_source);
  const absl::Status taken = source->Take(to_source, &plain);
  EXPECT_FALSE(taken.ok());
  EXPECT_FALSE(source->established());
}

TEST_F(TlsTest, WhoSecuresItOtherwiseIsToldAtOnce) {
  const std::pair<TrustKind, const char*> kinds[] = {
      {TrustKind::kPlain, "a plain session"},
      {TrustKind::kCertificates, "TLS with certificates"},
      {TrustKind::kPsk, "TLS with a pre-shared key"}};
  for (const auto& [theirs, their_text] : kinds) {
    for (const auto& [ours, our_text] : kinds) {
      const auto kind = ClassifyPreface(ControlPreface(theirs).data(), ours);
      EXPECT_EQ(kind.ok(), theirs == ours);
      if (theirs == ours) continue;
      EXPECT_TRUE(absl::IsUnauthenticated(kind.status()));
      EXPECT_THAT(std::string(kind.status().message()),
                  AllOf(HasSubstr(absl::StrCat("it wants ", their_text)),
                        HasSubstr(absl::StrCat("this side ", our_text))));
    }
  }
}

TEST_F(TlsTest, AHandshakeThatIsCutOffIsAnErrorAndSaysWhere) {
  int fds[2] = {-1, -1};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
  auto server = TlsContext::Make(With("target"), TlsRole::kServer);
  ASSERT_TRUE(server.ok());
  ControlChannel target(UniqueFd(fds[1]), "the source", false, Stream(*server, ""));
  const UniqueFd peer(fds[0]);
  ASSERT_EQ(::send(peer.get(), "\x16\x03\x01\x02", 4, 0), 4);
  ASSERT_TRUE(target.Receive().ok());
  ::shutdown(peer.get(), SHUT_WR);
  EXPECT_THAT(std::string(target.Receive().status().message()),
              HasSubstr("in the middle of the TLS handshake"));
}

TEST_F(TlsTest, AnEndlessHandshakeIsBounded) {
  auto server = TlsContext::Make(With("target"), TlsRole::kServer);
  ASSERT_TRUE(server.ok());
  const auto target = Stream(*server, "");
  // A hello that says that it has 16 MiB, in records of 16 KiB.
  std::string record("\x16\x03\x01\x40\x00", 5);
  record.resize(record.size() + 16384);
  std::string first = record;
  first[5] = '\x01';
  for (size_t i = 6; i < 9; ++i) first[i] = '\xff';
  std::string plain;
  absl::Status status = target->Take(first, &plain);
  size_t taken_bytes = first.size();
  while (status.ok() && taken_bytes < 2 * TlsStream::kHandshakeBytesMax) {
    status = target->Take(record, &plain);
    taken_bytes += record.size();
  }
  EXPECT_FALSE(status.ok());
  EXPECT_LE(taken_bytes, TlsStream::kHandshakeBytesMax + record.size());
}

TEST_F(TlsTest, WhatIsNoTlsIsToldApart) {
  auto server = TlsContext::Make(WithPsk("psk"), TlsRole::kServer);
  ASSERT_TRUE(server.ok());
  const auto target = Stream(*server, "");
  std::string plain;
  const absl::Status status = target->Take("GET / HTTP/1.1\r\n\r\n", &plain);
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("its TLS handshake is wrong"));
}

// Anybody on the way can close a TCP connection: only what the peer itself says is its end.
TEST_F(TlsTest, OnlyAnEndThatThePeerHasSaidIsInOrder) {
  for (const bool said : {true, false}) {
    source_ = {};
    target_ = {};
    Meet(WithPsk("psk"), WithPsk("psk"));
    ExpectBelieved();
    if (said) {
      source_.channel->EndSending();
    } else {
      ::shutdown(source_.channel->fd(), SHUT_WR);
    }
    target_.Listen();
    EXPECT_THAT(target_.error, HasSubstr("it closed the control channel"));
    EXPECT_EQ(target_.channel->closed_in_order(), said);
  }
}

TEST_F(TlsTest, AnEndBeforeTheHandshakeIsOverIsAnError) {
  for (const TlsRole role : {TlsRole::kClient, TlsRole::kServer}) {
    auto context = TlsContext::Make(WithPsk("psk"), role);
    ASSERT_TRUE(context.ok()) << context.status();
    const auto stream = Stream(*context, "");
    if (role == TlsRole::kClient) {
      ASSERT_TRUE(stream->Begin().ok());
    }
    std::string plain;
    // close_notify, in the clear: anybody can say it.
    const absl::Status taken = stream->Take(std::string("\x15\3\3\0\2\1\0", 7), &plain);
    EXPECT_FALSE(taken.ok());
    EXPECT_FALSE(stream->peer_ended());
  }
}

TEST_F(TlsTest, AChangedByteOnTheWayEndsTheChannel) {
  Meet(WithPsk("psk"), WithPsk("psk"));
  ExpectBelieved();
  // A record of application data that nobody has sealed.
  std::string forged("\x17\x03\x03\x00\x20", 5);
  forged.resize(forged.size() + 32, 'x');
  ASSERT_EQ(::send(source_.channel->fd(), forged.data(), forged.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(forged.size()));
  target_.Listen();
  EXPECT_EQ(target_.heard, "hello");
  EXPECT_THAT(target_.error, HasSubstr("its TLS broke"));
}

TEST_F(TlsTest, AKeyThatOthersMayReadIsRefused) {
  for (const char* const name : {"source.key", "psk"}) {
    ASSERT_EQ(::chmod(Path(name).c_str(), 0604), 0);
    const absl::Status refused =
        Refusal(std::string(name) == "psk" ? WithPsk("psk") : With("source"));
    EXPECT_TRUE(absl::IsPermissionDenied(refused)) << refused;
    EXPECT_THAT(std::string(refused.message()),
                AllOf(HasSubstr(Path(name)), HasSubstr("others may read"), HasSubstr("chmod 600")));
    ASSERT_EQ(::chmod(Path(name).c_str(), 0640), 0);  // a group is an administrator's choice
    EXPECT_TRUE(Refusal(std::string(name) == "psk" ? WithPsk("psk") : With("source")).ok());
  }
}

TEST_F(TlsTest, FilesThatAreNotWhatTheyShouldBeAreNamed) {
  const auto expect = [&](const TrustOptions& trust, const char* text) {
    const absl::Status refused = Refusal(trust);
    EXPECT_FALSE(refused.ok()) << text;
    EXPECT_THAT(std::string(refused.message()), AllOf(HasSubstr(folder_), HasSubstr(text)));
  };
  Write("empty", "");
  Write("nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
  Write("short-psk", Digits(62));
  Write("odd-psk", Digits(65));
  Write("wrong-psk", absl::StrCat(Digits(63), "x"));
  Write("large", Digits(kTrustFileBytesMax + 1));
  TrustOptions trust = With("source");
  trust.key_file = Path("target.key");
  expect(trust, "does not belong to the certificate");
  trust = With("source");
  trust.ca_file = Path("source.key");
  expect(trust, "no certificate in PEM form");
  trust.ca_file = Path("nonsense");
  expect(trust, "damaged");
  trust.ca_file = Path("absent");
  expect(trust, "can't be read");
  trust.ca_file = Path("large");
  expect(trust, "allowed are 1 to");
  trust = With("source");
  trust.key_file = Path("source.pem");
  expect(trust, "no private key");
  trust.certificate_file = folder_;
  expect(trust, "no regular file");
  for (const char* const name : {"empty", "short-psk", "odd-psk", "wrong-psk", "absent"}) {
    const absl::Status refused = Refusal(WithPsk(name));
    EXPECT_FALSE(refused.ok()) << name;
    EXPECT_THAT(std::string(refused.message()), AllOf(HasSubstr(name), Not(HasSubstr("aaaa"))));
  }
}

TEST_F(TlsTest, OptionsThatDontGoTogetherAreRefused) {
  const auto refused = [](const TrustOptions& trust) {
    return std::string(CheckTrust(trust).message());
  };
  TrustOptions trust = With("source");
  EXPECT_TRUE(CheckTrust(trust).ok());
  trust.key_file.clear();
  EXPECT_THAT(refused(trust), HasSubstr("missing: --tls-key"));
  trust = With("source");
  trust.psk_file = Path("psk");
  EXPECT_THAT(refused(trust), HasSubstr("one of them"));
  trust = With("source");
  trust.insecure = true;
  EXPECT_THAT(refused(trust), HasSubstr("--insecure"));
  trust = WithPsk("psk");
  trust.peer_name = "target.example";
  EXPECT_THAT(refused(trust), HasSubstr("no certificates here"));
}

}  // namespace
}  // namespace godwit
