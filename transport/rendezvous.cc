#include "transport/rendezvous.h"

#include <absl/strings/str_cat.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <utility>

#include "base/errno_status.h"
#include "base/status_macros.h"
#include "transport/make_room.h"

namespace godwit {
namespace {

constexpr std::chrono::seconds kPrefaceTimeout{5};

}  // namespace

absl::StatusOr<std::unique_ptr<Rendezvous>> Rendezvous::Listen(const TcpAddress& address, Note note,
                                                               TrustKind trust,
                                                               const Clock& clock) {
  GODWIT_ASSIGN_OR_RETURN(UniqueFd listener, ListenTcp(address));
  GODWIT_ASSIGN_OR_RETURN(const uint16_t port, LocalPort(listener.get()));
  return std::unique_ptr<Rendezvous>(
      new Rendezvous(std::move(listener), port, std::move(note), trust, clock));
}

void Rendezvous::AddPollFds(std::vector<pollfd>& fds) const {
  fds.push_back({listener_.get(), POLLIN, 0});
  for (const HalfOpen& connection : half_open_) {
    fds.push_back({connection.socket.get(), POLLIN, 0});
  }
}

// At most as many as there are places. None of those that come now makes room for another: what
// they have said already is not read yet. And no lane of the session makes room for them, unless
// such lanes have all places.
void Rendezvous::AcceptSome() {
  size_t read = half_open_.size();  // the first so many
  auto may_go = std::count_if(half_open_.begin(), half_open_.end(),
                              [](const HalfOpen& connection) { return !connection.belongs(); });
  if (read == kHalfOpenMax) may_go = std::max<ptrdiff_t>(may_go, 1);
  while (may_go > 0 || half_open_.size() < kHalfOpenMax) {
    auto socket = AcceptTcp(listener_.get(), Deadline());
    if (!socket.ok()) return;  // nobody there, or gone again
    if (half_open_.size() == kHalfOpenMax) {
      const auto goes =
          WhoMakesRoom(half_open_.begin(),
                       std::next(half_open_.begin(), static_cast<ptrdiff_t>(read)), clock_.Now());
      note_(
          absl::StrCat("too many connections that have not said whose they are: dropped one from ",
                       goes->peer()));
      half_open_.erase(goes);
      --read;
      --may_go;
    }
    HalfOpen connection;
    connection.peer_text = PeerText(socket->get());
    connection.socket = *std::move(socket);
    connection.network_number = NetworkOf(connection.peer_text);
    connection.stepped = clock_.Now();
    connection.deadline = connection.stepped + kPrefaceTimeout;
    half_open_.push_back(std::move(connection));
  }
}

// Tells the peer which version we are, and what we want.
void Rendezvous::TellOurPreface(const HalfOpen& connection) const {
  const auto ours = ControlPreface(trust_);
  (void)::send(connection.socket.get(), ours.data(), ours.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  ::shutdown(connection.socket.get(), SHUT_WR);
}

LaneHello Rendezvous::HalfOpen::Lane() const {
  std::array<char, kLanePrefaceBytes> preface;
  std::copy_n(bytes.begin(), preface.size(), preface.begin());
  return DecodeLanePreface(preface);
}

Rendezvous::ReadResult Rendezvous::ReadPreface(HalfOpen& connection,
                                               absl::Status& version_mismatch) {
  while (true) {
    while (connection.bytes_have < connection.bytes_wanted) {
      const ssize_t got = ::recv(connection.socket.get(), &connection.bytes[connection.bytes_have],
                                 connection.bytes_wanted - connection.bytes_have, MSG_DONTWAIT);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        if (clock_.Now() < connection.deadline) return ReadResult::kMore;
        note_(absl::StrCat("turned away ", connection.peer(), ": it said too little for too long"));
        return ReadResult::kGone;
      }
      if (got <= 0) {
        note_(absl::StrCat("turned away ", connection.peer(),
                           ": it left before saying what it wants"));
        return ReadResult::kGone;
      }
      if (connection.bytes_have == 0) connection.stepped = clock_.Now();
      connection.bytes_have += static_cast<size_t>(got);
    }
    const ReadResult taken =
        connection.is_lane ? TakeLane(connection) : TakePreface(connection, version_mismatch);
    if (taken != ReadResult::kMore) return taken;
  }
}

Rendezvous::ReadResult Rendezvous::TakePreface(HalfOpen& connection,
                                               absl::Status& version_mismatch) {
  const absl::StatusOr<PrefaceKind> kind = ClassifyPreface(connection.bytes.data(), trust_);
  if (absl::IsFailedPrecondition(kind.status())) {
    TellOurPreface(connection);
    version_mismatch = Annotate(kind.status(), absl::StrCat("peer ", connection.peer()));
    return ReadResult::kGone;
  }
  if (absl::IsUnauthenticated(kind.status())) TellOurPreface(connection);
  if (!kind.ok()) {
    note_(absl::StrCat("turned away ", connection.peer(), ": ", kind.status().message()));
    return ReadResult::kGone;
  }
  if (*kind == PrefaceKind::kControl) return ReadResult::kComplete;
  connection.is_lane = true;
  connection.bytes_wanted = kLanePrefaceBytes;
  return ReadResult::kMore;
}

Rendezvous::ReadResult Rendezvous::TakeLane(HalfOpen& connection) {
  const LaneHello lane = connection.Lane();
  connection.names_session = lane.session_id == session_id_;
  if (!session_id_.empty() && !connection.names_session) {
    note_(absl::StrCat("turned away ", connection.peer(), ": a lane of another session"));
    return ReadResult::kGone;
  }
  if (!lane_key_.has_value()) return ReadResult::kComplete;
  if (!connection.challenge.has_value()) {
    connection.challenge = NewLaneChallenge();
    connection.bytes_wanted += kLaneProofBytes;
    connection.deadline = clock_.Now() + kPrefaceTimeout;
    // On a new connection there is room: a deadline in the past asks without waiting.
    const absl::Status asked =
        WriteAll(connection.socket.get(),
                 {reinterpret_cast<const std::byte*>(connection.challenge->data()),
                  connection.challenge->size()},
                 Deadline());
    if (asked.ok()) return ReadResult::kMore;
    note_(absl::StrCat("turned away ", connection.peer(),
                       ": it takes no question: ", asked.message()));
    return ReadResult::kGone;
  }
  if (IsLaneProof(&connection.bytes[kLanePrefaceBytes], *lane_key_, *connection.challenge, lane)) {
    return ReadResult::kComplete;
  }
  note_(absl::StrCat("turned away ", connection.peer(),
                     ": a lane that can't prove that it is of this session"));
  return ReadResult::kGone;
}

absl::StatusOr<std::optional<Rendezvous::Arrival>> Rendezvous::Next() {
  // First, so that nobody makes room who has said what it wants; again for those that come.
  GODWIT_ASSIGN_OR_RETURN(std::optional<Arrival> arrival, ReadAll());
  if (arrival.has_value()) return arrival;
  AcceptSome();
  return ReadAll();
}

// Until the first that is complete.
absl::StatusOr<std::optional<Rendezvous::Arrival>> Rendezvous::ReadAll() {
  for (auto connection = half_open_.begin(); connection != half_open_.end();) {
    absl::Status version_mismatch;
    const ReadResult result = ReadPreface(*connection, version_mismatch);
    if (result == ReadResult::kMore) {
      ++connection;
      continue;
    }
    std::optional<Arrival> arrival;
    if (result == ReadResult::kComplete) {
      arrival.emplace();
      arrival->socket = std::move(connection->socket);
      arrival->peer = std::move(connection->peer_text);
      arrival->kind = connection->is_lane ? PrefaceKind::kLane : PrefaceKind::kControl;
      if (connection->is_lane) arrival->lane = connection->Lane();
    }
    connection = half_open_.erase(connection);
    if (!version_mismatch.ok()) return version_mismatch;
    if (arrival.has_value()) return arrival;
  }
  return std::nullopt;
}

}  // namespace godwit
