/* The handover, row for row as docs/handover.md has it: S… and T… are the rows there.
 * tests/model/check runs it, in these variants and with these mistakes:
 *
 *   UNORDERED    a message that was ever sent may come at any time, any number of times, or never:
 *                all that any number of connections can do, and more
 *   PATIENT      the link breaks LINK_BREAKS times and heals, nobody crashes, a way back works, and
 *                whoever waits for an answer or for Forget waits long enough
 *   REACH        remembers more, to show that what matters is reached at all
 *   BREAK_…      a deliberate mistake, which the checks must find
 *   ONLY=NAME    of what must never be, only NAME is looked for
 *
 * Within a connection messages keep their order; when it breaks, its tail is lost or still comes,
 * however late. Both sides read from old connections, too: nothing rests on telling them apart.
 * Loaded and Abort are before Commit, so they are on the first connection only.
 */
#ifdef UNORDERED
#define CONNECTIONS 1
#define CAN_RECONNECT true
#define RECONNECT skip
#else
#define CONNECTIONS 4  /* the first, and three re-made */
#define CAN_RECONNECT (broken[current] && current + 1 < CONNECTIONS)
#define RECONNECT current++
#endif
#define MESSAGES_MAX 4  /* on their way in a connection; no kind twice, see send(), receive_on() */

#ifdef PATIENT
#define LINK_BREAKS 2  /* the third re-made connection is for an Abort, see S7 */
#define DUPLICATES 2
#define COUNT_DOWN(left) left--
#define CRASHES false
#define WAY_BACK_FAILS false
#define ASKED_LONG_ENOUGH false       /* the source asks until it has an answer */
#define HELD_LONG_ENOUGH source_gone  /* the target is there as long as anybody may ask */
#else
#define LINK_BREAKS 1  /* any number: never counted down, like the duplicates */
#define DUPLICATES 1
#define COUNT_DOWN(left) skip
#define CRASHES true
#define WAY_BACK_FAILS true
#define ASKED_LONG_ENOUGH true
#define HELD_LONG_ENOUGH true
#endif

mtype:message = { Loaded, Commit, Done, RolledBack, Forget, Abort };
chan way[2 * CONNECTIONS] = [MESSAGES_MAX] of { mtype:message };
#define TO_TARGET 0            /* the first connection's way there; the others' follow */
#define TO_SOURCE CONNECTIONS  /* the same of the ways back */
hidden byte from;              /* the connection that a message has just come on */

bool link_up = true;
bool broken[CONNECTIONS] = false;
byte breaks_left = LINK_BREAKS;
byte duplicates_left = DUPLICATES;

mtype:state = {
  STREAMING, COMMITTED, RESUMING, RESUMING_AS_TOLD, HANDED_OVER, IN_DOUBT,  /* the source's */
  LOADING, LOADED, TO_RUNNING_P2P, TO_RUNNING, OWNER, RESETTING, STUCK,     /* the target's */
  ROLLED_BACK                                                               /* either's */
};

/* "Runs" is a device or a vCPU with the machine's state. A crash leaves it as it is: never better
 * than what a crash does. */
mtype:state source = STREAMING;
bool source_runs = true;
bool source_gone = false;   /* ended or crashed */
bool stream_ended = false;  /* its devices are stopped and their state is on the lanes */
bool must_commit = false;   /* Commit is yet to be sent on `current` */
byte current = 0;           /* the newest connection */

mtype:state target = LOADING;
bool target_runs = false;
bool said_loaded = false;
bool has_state = false;    /* its devices hold what was loaded */
bool vcpus = false;
bool must_answer = false;  /* a Commit that came on `answer_to` waits for its answer */
byte answer_to = 0;

#ifdef REACH
bool began_to_start = false;
bool late_commit_refused = false;
bool owner_asked_again = false;
#endif

/* What must never be, under the names that tests/model/check looks for. */
bool two_owners = false;
bool runs_after_rolled_back = false;
bool handed_over_to_nobody = false;
bool runs_without_state = false;

inline check() {
  two_owners = source_runs && target_runs;
  runs_after_rolled_back = source == ROLLED_BACK && target_runs;
  handed_over_to_nobody = source == HANDED_OVER && target != OWNER;
  runs_without_state = target_runs && !has_state;
#ifdef ONLY
  assert(!ONLY)
#else
  assert(!two_owners);
  assert(!runs_after_rolled_back);
  assert(!handed_over_to_nobody);
  assert(!runs_without_state)
#endif
}

inline send(to, connection, what) {
  if
  :: way[to + connection]??[what]
  :: else -> way[to + connection]!what
  fi
}

/* Nobody is obliged to say why he gives up, nor able to on a broken connection. */
inline send_abort(to, connection) {
  if
  :: send(to, connection, Abort)
  :: skip
  fi
}

/* Waits until `when` holds and the connection has `what` next; takes it, or lets it come again. */
inline receive_on(connection, when, to, what) {
  if
#ifdef UNORDERED
  :: (when) && way[to]??[what]
#else
  :: (when) && way[to + connection]?[what] -> way[to + connection]?what
  :: (when) && way[to + connection]?[what] && duplicates_left > 0 -> COUNT_DOWN(duplicates_left)
#endif
  fi
}

/* The same on any connection: `from` says which. */
inline receive(when, to, what) {
  if
  :: receive_on(0, when, to, what) -> from = 0
#ifndef UNORDERED
  :: receive_on(1, when, to, what) -> from = 1
  :: receive_on(2, when, to, what) -> from = 2
  :: receive_on(3, when, to, what) -> from = 3
#endif
  fi
}

active proctype Source() {
  do
  :: atomic { source == STREAMING && source_runs ->
       source_runs = false; stream_ended = true }

  /* S1 */
#ifdef BREAK_SENDS_BEFORE_RECORD
  :: atomic { receive_on(0, source == STREAMING, TO_SOURCE, Loaded) ->
       send(TO_TARGET, current, Commit) }
  :: atomic { source == STREAMING && way[TO_TARGET + current]??[Commit] ->
       source = COMMITTED }
#else
  :: atomic { receive_on(0, source == STREAMING, TO_SOURCE, Loaded) ->
       source = COMMITTED; must_commit = true }
  :: atomic { must_commit ->
       must_commit = false; send(TO_TARGET, current, Commit) }
#endif

  /* S2: whatever the reason */
  :: atomic { source == STREAMING ->
       source = RESUMING; send_abort(TO_TARGET, 0) }
  :: atomic { source == RESUMING && !source_runs ->
       source_runs = true; check() }
  :: atomic { source == RESUMING && source_runs ->
       source = ROLLED_BACK; check(); break }
  :: atomic { source == RESUMING && WAY_BACK_FAILS ->
       source_runs = false; source = ROLLED_BACK; check(); break }

  /* S3; silence on a whole connection is one of the link's breaks, too */
#ifndef BREAK_ASKS_ONCE
  :: atomic { source == COMMITTED && !must_commit && link_up && CAN_RECONNECT ->
       RECONNECT; must_commit = true }
#endif

  /* S4 */
  :: atomic { receive(source == COMMITTED, TO_SOURCE, Done) ->
       source = HANDED_OVER; check(); send(TO_TARGET, current, Forget); break }

  /* S5 */
  :: atomic { receive(source == COMMITTED, TO_SOURCE, RolledBack) ->
       source = RESUMING_AS_TOLD }
  :: atomic { source == RESUMING_AS_TOLD && !source_runs ->
       source_runs = true; check() }
  :: atomic { source == RESUMING_AS_TOLD && source_runs ->
       source = ROLLED_BACK; check(); send(TO_TARGET, current, Forget); break }
  :: atomic { source == RESUMING_AS_TOLD && WAY_BACK_FAILS ->
       source_runs = false; source = ROLLED_BACK; check(); send(TO_TARGET, current, Forget); break }

  /* S6 */
#ifdef BREAK_RESUMES_BY_ITSELF
  :: atomic { source == COMMITTED && ASKED_LONG_ENOUGH ->
       source = RESUMING }
#else
  :: atomic { source == COMMITTED && ASKED_LONG_ENOUGH ->
       source = IN_DOUBT; break }
#endif

  /* S7 */
  :: atomic { receive_on(0, source == COMMITTED, TO_SOURCE, Abort) ->
       broken[0] = true }
  :: atomic { receive_on(0, source == COMMITTED, TO_SOURCE, Loaded) }

  :: CRASHES -> break
  od;
  source_gone = true
}

active proctype Target() {
  do
  /* T1 */
  :: atomic { target == LOADING && stream_ended ->
       has_state = true; target = LOADED; said_loaded = true; send(TO_SOURCE, 0, Loaded) }

  /* T2: whatever the reason */
  :: atomic { target == LOADING ->
       target = RESETTING; send_abort(TO_SOURCE, 0) }

  /* T3 is that a broken connection and silence change nothing. */

  /* T4: whatever the reason */
#ifdef BREAK_RESETS_BEFORE_RECORD
  :: atomic { target == LOADED && has_state ->
       has_state = false }
#endif
  :: atomic { target == LOADED ->
       target = RESETTING; send_abort(TO_SOURCE, 0) }

  /* T5 */
  :: atomic { receive(target == LOADED, TO_TARGET, Commit) ->
#ifdef REACH
       began_to_start = true;
#endif
#ifdef BREAK_DONE_BEFORE_RUNNING
       send(TO_SOURCE, from, Done);
#endif
       target = TO_RUNNING_P2P; must_answer = true; answer_to = from }

  /* T6 */
  :: atomic { target == TO_RUNNING_P2P ->
       target_runs = true; check(); target = TO_RUNNING }
  :: atomic { target == TO_RUNNING ->
       target = OWNER }
  :: atomic { target == OWNER && !vcpus ->
       vcpus = true }
  :: atomic { target == OWNER && vcpus && must_answer ->
       send(TO_SOURCE, answer_to, Done); must_answer = false; answer_to = 0 }

  /* T7: some device may have started before another failed */
  :: atomic { target == TO_RUNNING_P2P || target == TO_RUNNING ->
       target_runs = true; check(); target = RESETTING }
#ifdef BREAK_FORGETS_ROLLBACK
  :: atomic { target == RESETTING && target_runs ->
       target_runs = false; has_state = false; target = LOADED;
       send(TO_SOURCE, answer_to, RolledBack); must_answer = false; answer_to = 0 }
#endif
  :: atomic { target == RESETTING ->
       target_runs = false; has_state = false; target = ROLLED_BACK }
  :: atomic { target == ROLLED_BACK && must_answer ->
       send(TO_SOURCE, answer_to, RolledBack); must_answer = false; answer_to = 0 }

  /* T8 is that nothing is read meanwhile. */
#ifdef BREAK_DROPS_EARLY_COMMIT
  :: atomic { receive(target == TO_RUNNING_P2P || target == TO_RUNNING, TO_TARGET, Commit) }
#endif
#ifdef BREAK_ANSWERS_BEFORE_RESET
  :: atomic { receive(target == RESETTING, TO_TARGET, Commit) ->
       send(TO_SOURCE, from, RolledBack) }
#endif

  /* T9 */
  :: atomic { target == RESETTING && target_runs && WAY_BACK_FAILS ->
#ifdef BREAK_ANSWERS_FAILED_RESET
       target = ROLLED_BACK }
#else
       target = STUCK }
#endif

  /* T10 */
  :: atomic { receive(target == OWNER && vcpus && !must_answer, TO_TARGET, Commit) ->
#ifdef REACH
       owner_asked_again = true;
#endif
       send(TO_SOURCE, from, Done) }

  /* T11 */
  :: atomic { receive(target == OWNER && vcpus && !must_answer, TO_TARGET, Forget) ->
       break }
#ifndef BREAK_HOLDS_FOR_EVER
  :: target == OWNER && vcpus && !must_answer && HELD_LONG_ENOUGH ->
       break
#endif

  /* T12 */
  :: atomic { receive(target == ROLLED_BACK && !must_answer, TO_TARGET, Commit) ->
#ifdef REACH
       late_commit_refused = !began_to_start;
#endif
       send(TO_SOURCE, from, RolledBack) }
#ifdef BREAK_TAKES_LATE_COMMIT
  :: atomic { receive(target == ROLLED_BACK && !must_answer, TO_TARGET, Commit) ->
       target = TO_RUNNING_P2P; must_answer = true; answer_to = from }
#endif

  /* T13 */
  :: atomic { receive(target == ROLLED_BACK && !must_answer, TO_TARGET, Forget) ->
       break }
  :: atomic { receive_on(0, target == ROLLED_BACK && !must_answer, TO_TARGET, Abort) ->
       break }
  :: target == ROLLED_BACK && !must_answer && (HELD_LONG_ENOUGH || !said_loaded) ->
       break
  :: target == STUCK && HELD_LONG_ENOUGH ->
       break

  :: CRASHES -> break
  od
}

/* What is still on its way is the tail. */
inline lose(to, connection) {
  broken[connection] && nempty(way[to + connection]) ->
  do
  :: way[to + connection]?_
  :: empty(way[to + connection]) -> break
  od
}

active proctype Link() {
end:
  do
  :: atomic { link_up && !broken[current] && breaks_left > 0 ->
       COUNT_DOWN(breaks_left); broken[current] = true; link_up = false }
  :: !link_up -> link_up = true
  :: breaks_left > 0 -> breaks_left = 0
#ifndef UNORDERED
  :: atomic { lose(TO_TARGET, 0) }
  :: atomic { lose(TO_TARGET, 1) }
  :: atomic { lose(TO_TARGET, 2) }
  :: atomic { lose(TO_TARGET, 3) }
  :: atomic { lose(TO_SOURCE, 0) }
  :: atomic { lose(TO_SOURCE, 1) }
  :: atomic { lose(TO_SOURCE, 2) }
  :: atomic { lose(TO_SOURCE, 3) }
#endif
  od
}

#define RUNS_HERE (source == ROLLED_BACK && source_runs && !target_runs)
#define RUNS_THERE (source == HANDED_OVER && !source_runs && target == OWNER && vcpus)
ltl settles { <>[] (RUNS_HERE || RUNS_THERE) }

/* To be refuted. */
#ifdef REACH
ltl never_handed_over { [] !RUNS_THERE }
ltl never_rolled_back { [] !RUNS_HERE }
ltl never_late_commit_refused { [] !(source == ROLLED_BACK && late_commit_refused) }
ltl never_owner_asked_again { [] !(source == HANDED_OVER && owner_asked_again) }
ltl never_owner_after_doubt { !<>(source == IN_DOUBT && target == LOADED && <>(target == OWNER)) }
ltl never_in_doubt_of_rolled_back { [] !(source == IN_DOUBT && target == ROLLED_BACK) }
#endif
