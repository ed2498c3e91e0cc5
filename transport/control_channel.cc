#include "transport/control_channel.h"

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <absl/types/span.h>
#include <fcntl.h>
#include <google/protobuf/arena.h>
#include <google/protobuf/stubs/logging.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/errno_status.h"
#include "base/status_macros.h"
#include "transport/control.pb.h"

namespace godwit {
namespace {

constexpr absl::string_view kControlMagic = "GODWIT";
constexpr absl::string_view kLaneMagic = "GODWITLN";
constexpr size_t kLengthBytes = 4;
// Receipts are the only messages that can pile up, and a peer that takes none for this many bytes
// is not reading.
constexpr size_t kOutboxBytesMax = 1024 * 1024;

void AppendBigEndian32(std::string& out, uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<char>(value >> shift));
}

uint32_t BigEndian32(const char* bytes) {
  uint32_t value = 0;
  for (int i = 0; i < 4; ++i) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return value;
}

const char* TrustText(TrustKind kind) {
  switch (kind) {
    case TrustKind::kPlain:
      return "a plain session";
    case TrustKind::kCertificates:
      return "TLS with certificates";
    case TrustKind::kPsk:
      return "TLS with a pre-shared key";
  }
  return "?";
}

// Without a word on stderr, where protobuf complains of text that is not UTF-8: what a peer sends
// is told by a status, and a stranger could fill a log.
bool ParseQuietly(const char* bytes, size_t count, control::ControlMessage& message) {
  const google::protobuf::LogSilencer quiet;
  return message.ParseFromArray(bytes, static_cast<int>(count));
}

}  // namespace

// In memory that is used again for the next message; what has no room there is allocated. Receipts
// of 64 lanes and 64 devices take about 3 KiB, since protobuf's arrays grow by doubling.
struct ControlChannel::Parsed {
  // The last one is gone then.
  control::ControlMessage& Fresh() {
    arena.Reset();
    return *google::protobuf::Arena::CreateMessage<control::ControlMessage>(&arena);
  }
  static google::protobuf::ArenaOptions Options(absl::Span<char> memory) {
    google::protobuf::ArenaOptions options;
    options.initial_block = memory.data();
    options.initial_block_size = memory.size();
    return options;
  }

  alignas(std::max_align_t) std::array<char, kControlParseBytes> memory;
  google::protobuf::Arena arena{Options(absl::MakeSpan(memory))};
};

ControlChannel::~ControlChannel() = default;

std::array<char, kControlPrefaceBytes> ControlPreface(TrustKind trust) {
  std::array<char, kControlPrefaceBytes> preface;
  std::memcpy(preface.data(), kControlMagic.data(), kControlMagic.size());
  preface[6] = static_cast<char>(trust);
  preface[7] = static_cast<char>(kControlProtocolVersion);
  return preface;
}

std::array<char, kLanePrefaceBytes> LanePreface(const std::string& session_id, uint16_t lane,
                                                uint16_t generation) {
  GODWIT_CHECK(session_id.size() == kSessionIdBytes);
  std::string text = absl::StrCat(kLaneMagic, session_id);
  AppendBigEndian32(text, uint32_t{generation} << 16 | lane);
  std::array<char, kLanePrefaceBytes> preface;
  std::memcpy(preface.data(), text.data(), preface.size());
  return preface;
}

absl::StatusOr<PrefaceKind> ClassifyPreface(const char* first_8_bytes, TrustKind ours) {
  const absl::string_view bytes(first_8_bytes, 8);
  if (bytes == kLaneMagic) return PrefaceKind::kLane;
  if (!absl::StartsWith(bytes, kControlMagic)) {
    return absl::InvalidArgumentError("what it sent is not Godwit's protocol");
  }
  const auto trust = static_cast<unsigned char>(bytes[6]);
  const auto version = static_cast<unsigned char>(bytes[7]);
  if (version != kControlProtocolVersion || trust > static_cast<unsigned>(TrustKind::kPsk)) {
    // Of a kind of trust that is not known, all that can be said is both bytes.
    const unsigned theirs = trust > static_cast<unsigned>(TrustKind::kPsk)
                                ? unsigned{trust} << 8 | version
                                : unsigned{version};
    return absl::FailedPreconditionError(
        absl::StrCat("it speaks Godwit protocol version ", theirs, ", this side speaks ",
                     kControlProtocolVersion, ": install the same Godwit on both hosts"));
  }
  if (trust != static_cast<unsigned>(ours)) {
    return absl::UnauthenticatedError(
        absl::StrCat("it wants ", TrustText(static_cast<TrustKind>(trust)), ", this side ",
                     TrustText(ours), ": give both hosts certificates, or the same --psk-file"));
  }
  return PrefaceKind::kControl;
}

LaneHello DecodeLanePreface(const std::array<char, kLanePrefaceBytes>& bytes) {
  LaneHello hello;
  hello.session_id.assign(bytes.data() + kLaneMagic.size(), kSessionIdBytes);
  const uint32_t numbers = BigEndian32(bytes.data() + kLaneMagic.size() + kSessionIdBytes);
  hello.generation = static_cast<uint16_t>(numbers >> 16);
  hello.lane = static_cast<uint16_t>(numbers);
  return hello;
}

ControlChannel::ControlChannel(UniqueFd socket, std::string peer, bool expect_preface,
                               std::unique_ptr<TlsStream> tls, const Clock& clock)
    : socket_(std::move(socket)),
      peer_(std::move(peer)),
      clock_(clock),
      tls_(std::move(tls)),
      preface_expected_(expect_preface),
      parsed_(std::make_unique<Parsed>()),
      last_sent_(clock.Now()),
      last_received_(clock.Now()) {
  const int flags = ::fcntl(socket_.get(), F_GETFL);
  ::fcntl(socket_.get(), F_SETFL, flags | O_NONBLOCK);
  // A small message behind another must not wait for an acknowledgement that is being delayed: that
  // is 40 ms of downtime. (Fails on a local socket, which has no such delay.)
  const int on = 1;
  (void)::setsockopt(socket_.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  const auto preface = ControlPreface(tls_ == nullptr ? TrustKind::kPlain : tls_->kind());
  outbox_.assign(preface.data(), preface.size());
}

absl::Status ControlChannel::Fail(absl::Status status) {
  if (status_.ok()) status_ = Annotate(status, absl::StrCat("peer ", peer_));
  return status_;
}

absl::Status ControlChannel::Send(const control::ControlMessage& message) {
  if (!status_.ok()) return status_;
  const size_t bytes = message.ByteSizeLong();
  GODWIT_CHECK(bytes <= kControlMessageBytesMax);
  if (outbox_.size() + waiting_.size() + kLengthBytes + bytes > kOutboxBytesMax) {
    return Fail(absl::UnavailableError("it has stopped reading the control channel"));
  }
  std::string& out = tls_ == nullptr ? outbox_ : waiting_;
  AppendBigEndian32(out, static_cast<uint32_t>(bytes));
  const size_t at = out.size();
  out.resize(at + bytes);
  message.SerializeWithCachedSizesToArray(reinterpret_cast<uint8_t*>(&out[at]));
  last_sent_ = clock_.Now();
  return Flush();
}

// What the peer may have now that it has proven who it is.
absl::Status ControlChannel::SealWaiting() {
  if (tls_ == nullptr) return absl::OkStatus();
  if (tls_->ended()) waiting_.clear();
  if (tls_->established() && !waiting_.empty()) {
    const absl::Status written = tls_->Write(waiting_);
    waiting_.clear();
    if (!written.ok()) return Fail(written);
  }
  tls_->MoveOutput(outbox_);
  return absl::OkStatus();
}

void ControlChannel::EndSending() {
  if (Flush().ok() && tls_ != nullptr) {
    tls_->End();
    (void)Flush();
  }
  if (!wants_write()) ::shutdown(socket_.get(), SHUT_WR);
}

absl::Status ControlChannel::Flush() {
  if (!status_.ok()) return status_;
  GODWIT_RETURN_IF_ERROR(SealWaiting());
  while (!outbox_.empty()) {
    const ssize_t sent = ::send(socket_.get(), outbox_.data(), outbox_.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return absl::OkStatus();
    if (sent < 0) {
      const int error = errno;
      hung_up_ = true;
      // The peer may have said why before it left: let Receive() find that first.
      if (ReadSome().ok() && !inbox_.empty()) {
        outbox_.clear();
        return absl::OkStatus();
      }
      // (EPIPE, of a peer that closed its end, would be FailedPrecondition by itself.)
      return Fail(absl::UnavailableError(
          ErrnoStatus(error, "sending on the control channel failed").message()));
    }
    outbox_.erase(0, static_cast<size_t>(sent));
  }
  return absl::OkStatus();
}

absl::Status ControlChannel::ReadSome() {
  while (!peer_closed_ && inbox_.size() < kControlMessageBytesMax + kLengthBytes) {
    char bytes[16 * 1024];
    const ssize_t got = ::recv(socket_.get(), bytes, sizeof(bytes), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) break;
    hung_up_ |= got <= 0;
    if (got < 0) {
      if (!inbox_.empty()) {  // what came before the reset still counts
        peer_closed_ = true;
        break;
      }
      return Fail(ErrnoStatus(errno, "the control channel broke"));
    }
    if (got == 0) {
      peer_closed_ = true;
      end_of_stream_ = tls_ == nullptr;
      break;
    }
    last_received_ = clock_.Now();
    heard_ = true;
    GODWIT_RETURN_IF_ERROR(TakeWire({bytes, static_cast<size_t>(got)}));
  }
  return absl::OkStatus();
}

absl::Status ControlChannel::TakePreface(absl::string_view& bytes) {
  const size_t take = std::min(kControlPrefaceBytes - preface_.size(), bytes.size());
  absl::StrAppend(&preface_, bytes.substr(0, take));
  bytes.remove_prefix(take);
  if (preface_.size() < kControlPrefaceBytes) return absl::OkStatus();
  const auto kind =
      ClassifyPreface(preface_.data(), tls_ == nullptr ? TrustKind::kPlain : tls_->kind());
  if (!kind.ok()) return Fail(kind.status());
  if (*kind != PrefaceKind::kControl) {
    return Fail(absl::InvalidArgumentError("it answered with the preface of a lane"));
  }
  preface_expected_ = false;
  preface_.clear();
  if (tls_ == nullptr) return absl::OkStatus();
  const absl::Status begun = tls_->Begin();
  return begun.ok() ? begun : Fail(begun);
}

absl::Status ControlChannel::TakeWire(absl::string_view bytes) {
  if (preface_expected_) {
    GODWIT_RETURN_IF_ERROR(TakePreface(bytes));
    if (preface_expected_) return absl::OkStatus();
  }
  if (tls_ == nullptr) {
    absl::StrAppend(&inbox_, bytes);
    return absl::OkStatus();
  }
  const absl::Status taken = tls_->Take(bytes, &inbox_);
  if (!taken.ok()) {
    // The peer is told why, if it listens.
    tls_->MoveOutput(outbox_);
    (void)::send(socket_.get(), outbox_.data(), outbox_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    ::shutdown(socket_.get(), SHUT_WR);
    return Fail(taken);
  }
  if (tls_->peer_ended()) peer_closed_ = end_of_stream_ = true;
  return absl::OkStatus();
}

absl::Status ControlChannel::PeerClosed() {
  if (tls_ != nullptr && !tls_->established() && !preface_expected_) {
    return Fail(
        absl::UnavailableError("it closed the control channel in the middle of the TLS handshake"));
  }
  return Fail(
      absl::UnavailableError(inbox_.empty() && preface_.empty()
                                 ? "it closed the control channel"
                                 : "it closed the control channel in the middle of a message"));
}

absl::StatusOr<const control::ControlMessage*> ControlChannel::Next() {
  if (!status_.ok()) return status_;
  GODWIT_RETURN_IF_ERROR(ReadSome());
  // The handshake goes on by itself.
  if (tls_ != nullptr && !peer_closed_) {
    GODWIT_RETURN_IF_ERROR(Flush());
  }
  while (!preface_expected_ && inbox_.size() >= kLengthBytes) {
    const uint32_t bytes = BigEndian32(inbox_.data());
    if (bytes == 0 || bytes > kControlMessageBytesMax) {
      return Fail(absl::InvalidArgumentError(absl::StrCat("it announced a control message of ",
                                                          bytes, " bytes, allowed are 1 to ",
                                                          kControlMessageBytesMax)));
    }
    if (inbox_.size() < kLengthBytes + bytes) break;
    control::ControlMessage& message = parsed_->Fresh();
    const bool parsed = ParseQuietly(inbox_.data() + kLengthBytes, bytes, message);
    inbox_.erase(0, kLengthBytes + bytes);
    if (!parsed || message.message_case() == control::ControlMessage::MESSAGE_NOT_SET) {
      return Fail(absl::InvalidArgumentError(
          absl::StrCat("it sent a control message of ", bytes, " bytes that does not parse")));
    }
    if (message.message_case() != control::ControlMessage::kPing) return &message;
    GODWIT_RETURN_IF_ERROR(TakePing(message.ping().question(), message.ping().answer()));
  }
  if (peer_closed_) return PeerClosed();
  return nullptr;
}

absl::StatusOr<std::optional<control::ControlMessage>> ControlChannel::Receive() {
  GODWIT_ASSIGN_OR_RETURN(const control::ControlMessage* const next, Next());
  std::optional<control::ControlMessage> message;
  if (next != nullptr) message = *next;
  return message;
}

absl::Status ControlChannel::Tick() {
  if (!status_.ok()) return status_;
  const Clock::Duration now = clock_.Now();
  if (now - last_received_ > kControlSilenceMax) {
    // What arrived while we were busy elsewhere counts as heard.
    GODWIT_RETURN_IF_ERROR(ReadSome());
    if (now - last_received_ > kControlSilenceMax) {
      return Fail(absl::UnavailableError(
          absl::StrCat("nothing has come from it for ", kControlSilenceMax.count(), " s")));
    }
  }
  if (now - last_sent_ > kControlPingInterval) {
    control::ControlMessage message;
    message.mutable_ping();
    return Send(message);
  }
  return Flush();
}

absl::Status ControlChannel::TakePing(uint64_t question, uint64_t answer) {
  if (probe_out_ && answer == probes_) {
    probes_took_[answered_++ % kProbesKept] = clock_.Now() - probed_at_;
    probe_out_ = false;
  }
  if (question == 0) return absl::OkStatus();
  control::ControlMessage message;
  message.mutable_ping()->set_answer(question);
  return Send(message);
}

absl::Status ControlChannel::Probe() {
  if (!status_.ok()) return status_;
  const Clock::Duration now = clock_.Now();
  const bool too_soon = probes_ > 0 && now - probed_at_ < kProbeInterval;
  if (probe_out_ || too_soon) return absl::OkStatus();
  control::ControlMessage message;
  message.mutable_ping()->set_question(++probes_);
  probe_out_ = true;
  probed_at_ = now;
  return Send(message);
}

Clock::Duration ControlChannel::round_trip() const {
  if (answered_ > 0) {
    std::array<Clock::Duration, kProbesKept> took = probes_took_;
    const auto middle = took.begin() + static_cast<ptrdiff_t>(std::min(answered_, kProbesKept) / 2);
    std::nth_element(took.begin(), middle,
                     took.begin() + static_cast<ptrdiff_t>(std::min(answered_, kProbesKept)));
    return *middle;
  }
  tcp_info info{};
  socklen_t length = sizeof(info);
  if (::getsockopt(socket_.get(), IPPROTO_TCP, TCP_INFO, &info, &length) != 0) return {};
  return std::chrono::microseconds(info.tcpi_rtt);
}

}  // namespace godwit
