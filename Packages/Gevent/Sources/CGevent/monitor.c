#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "gevent_futex.h"
#include "gevent_hub.h"
#include "gevent_monitor_memory.h"
#include "gevent_sample.h"
#include "gevent_symbolize.h"

// Ignored by default, so one that comes too early or too late does no harm; and hardly any program uses it.
enum { SAMPLE_SIGNAL = SIGURG };

/// Other threads read here what the hub writes with plain stores, and the handler reads stacks where sanitizers put
/// what nobody should touch.
#define LOOKS __attribute__((noinline, no_sanitize("thread", "address")))

// MARK: counters

// Each counter is an aligned word that only the hub's thread writes, so another thread reads an earlier value or a
// later one and never a mixture. Each only grows, but that the head of the ready queue goes back by as much as
// moved_count grows. So if the sum of these reads, taken at different moments, is what it was, no counter has moved
// between the last read of the first sum and the first read of the second, and that is all that is concluded from it: a
// sum taken while the head goes back may be off by as many as were moved, which is what is run next. No other memory is
// read on the strength of it, so no order is needed. The hub's stores on its hot path stay plain ones; the reads are
// volatile and not atomic because ThreadSanitizer looks at every atomic.
LOOKS static uint64_t read_word(const uint64_t *word) { return *(const volatile uint64_t *)word; }

LOOKS uint64_t gevent_hub_activity(const gevent_hub *hub) {
    return read_word(&hub->ready_head) + read_word(&hub->moved_count) + read_word(&hub->root_switch_count) +
           read_word(&hub->handover_count) + read_word(&hub->poll_phase);
}

LOOKS bool gevent_hub_is_polling(const gevent_hub *hub) { return read_word(&hub->poll_phase) & 1; }

void gevent_hub_poll_begins(gevent_hub *hub) { hub->poll_phase++; }

void gevent_hub_poll_ends(gevent_hub *hub) { hub->poll_phase++; }

// MARK: the handler

/// Whose turn it is with a sample.
enum {
    IDLE = 0,     // the watcher's
    WANTED = 1,   // the first to take it out of this state has it
    TAKING = 2,   // the handler's
    TAKEN = 3,    // the watcher's again
};

enum { REFUSED_MOST = 10 };

typedef struct request {
    gevent_sample sample;  // first, so that a sample is its request
    int thread;            // the kernel's number of the hub's thread
    bool was_blocked;      // the signal, before
    uintptr_t refused[REFUSED_MOST];  // one of these is the lock for which the kernel does not let the thread wait
    size_t refused_count;
} request;

static struct sigaction previous;

static bool takes(gevent_sample *sample, uint32_t from, uint32_t to) {
    return __atomic_compare_exchange_n(&sample->state, &from, to, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

LOOKS void gevent_describe_context(const gevent_hub *hub, const gevent_context *context, gevent_identity *identity) {
    identity->owner = *(void *const volatile *)&context->owner;
    identity->isa = NULL;
    identity->kind = context == &hub->main   ? GEVENT_SAMPLE_OF_MAIN
                     : context == &hub->root ? GEVENT_SAMPLE_OF_HUB
                                             : GEVENT_SAMPLE_OF_GREENLET;
    size_t last = sizeof identity->name - 1;
    for (size_t i = 0; i < last; i++) identity->name[i] = ((const volatile char *)context->name)[i];
    identity->name[last] = 0;
}

LOOKS static const gevent_context *describe_current(const gevent_hub *hub, gevent_sample *sample) {
    const gevent_context *context = *(gevent_context *const volatile *)&hub->current;
    gevent_describe_context(hub, context, &sample->who);
    return context;
}

/// Sets where the copy of the stack begins, and returns how long it is to be.
LOOKS static size_t words_to_copy(const gevent_context *context, gevent_sample *sample, uintptr_t stack_pointer) {
    uintptr_t low = (uintptr_t)context->stack_low, high = (uintptr_t)context->stack_high;
    uintptr_t from = (stack_pointer + sizeof(uintptr_t) - 1) & ~(uintptr_t)(sizeof(uintptr_t) - 1);
    sample->stack_pointer = from;
    // In the middle of a switch the stack and the context may be two different ones.
    if (from < low || from >= high) return 0;
    size_t count = (high - from) / sizeof(uintptr_t);
    return count < GEVENT_SAMPLE_WORDS ? count : GEVENT_SAMPLE_WORDS;
}

LOOKS static void copy_stack(const gevent_context *context, gevent_sample *sample, uintptr_t stack_pointer) {
    size_t count = words_to_copy(context, sample, stack_pointer);
    const volatile uintptr_t *words = (const volatile uintptr_t *)sample->stack_pointer;
    for (size_t i = 0; i < count; i++) sample->words[i] = words[i];
    sample->word_count = count;
}

/// The kernel refuses to let a thread wait for a lock that it holds itself, if the lock says by whom it is held, as
/// those of Swift do. What asks for it again and again is nearly always found right behind the system call.
static void note_refused(request *asked, const ucontext_t *machine) {
    asked->refused_count = 0;
#if defined(__x86_64__)
    const greg_t *registers = machine->uc_mcontext.gregs;
    static const unsigned char system_call[] = {0x0f, 0x05};
    if (registers[REG_RAX] != -EDEADLK || memcmp((const char *)registers[REG_RIP] - 2, system_call, 2) != 0) return;
    asked->refused[asked->refused_count++] = (uintptr_t)registers[REG_RDI];
#elif defined(__aarch64__)
    const uint64_t *registers = (const uint64_t *)machine->uc_mcontext.regs;
    const uint32_t *code = (const uint32_t *)machine->uc_mcontext.pc;
    if ((int64_t)registers[0] != -EDEADLK || code[-1] != 0xd4000001) return;
    // The result lies where the address was; the caller has it in a register that survives calls.
    for (size_t i = 0; i < REFUSED_MOST; i++) asked->refused[asked->refused_count++] = registers[19 + i];
#endif
}

LOOKS static void take(const gevent_hub *hub, gevent_sample *sample, const ucontext_t *machine) {
    sample->activity = gevent_hub_activity(hub);
    note_refused((request *)sample, machine);
    const gevent_context *context = describe_current(hub, sample);
    // Whoever runs is retained, and an object begins with its class.
    sample->who.isa = sample->who.owner ? *(void *const volatile *)sample->who.owner : NULL;
#if defined(__x86_64__)
    const greg_t *registers = machine->uc_mcontext.gregs;
    sample->program_counter = (uintptr_t)registers[REG_RIP];
    uintptr_t stack_pointer = (uintptr_t)registers[REG_RSP];
    sample->frame_pointer = (uintptr_t)registers[REG_RBP];
    sample->link_register = 0;
#elif defined(__aarch64__)
    sample->program_counter = machine->uc_mcontext.pc;
    uintptr_t stack_pointer = machine->uc_mcontext.sp;
    sample->frame_pointer = machine->uc_mcontext.regs[29];
    sample->link_register = machine->uc_mcontext.regs[30];
#endif
    copy_stack(context, sample, stack_pointer);
}

/// Only async-signal-safe calls, and few: the thread may have been anywhere.
static void handler(int signal, siginfo_t *info, void *machine_context) {
    int error = errno;
    gevent_hub *hub = gevent_this_thread_hub;
    gevent_sample *sample = hub ? hub->sample : NULL;
    if (sample && takes(sample, WANTED, TAKING)) {
        take(hub, sample, machine_context);
        __atomic_store_n(&sample->state, TAKEN, __ATOMIC_RELEASE);
        gevent_futex_wake(&sample->state);
    }
    bool is_ours = info->si_code == SI_QUEUE && info->si_value.sival_ptr == &previous;
    if (!is_ours) {
        if (previous.sa_flags & SA_SIGINFO)
            previous.sa_sigaction(signal, info, machine_context);
        else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN)
            previous.sa_handler(signal);
    }
    errno = error;
}

static void install(void) {
    struct sigaction action = {0};
    action.sa_sigaction = handler;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
    sigemptyset(&action.sa_mask);
    sigaction(SAMPLE_SIGNAL, NULL, &previous);
    sigaction(SAMPLE_SIGNAL, &action, NULL);
}

/// A program may have taken the signal for itself since.
static bool is_installed(void) {
    struct sigaction current;
    return sigaction(SAMPLE_SIGNAL, NULL, &current) == 0 && (current.sa_flags & SA_SIGINFO) &&
           current.sa_sigaction == handler;
}

// MARK: samples

const gevent_identity *gevent_sample_identity(const gevent_sample *sample) { return &sample->who; }

static void only_ours(sigset_t *signals) {
    sigemptyset(signals);
    sigaddset(signals, SAMPLE_SIGNAL);
}

int gevent_sampling_start(gevent_hub *hub) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    request *made = calloc(1, sizeof *made);
    if (!made) return ENOMEM;
    made->thread = gevent_this_thread_number();
    pthread_once(&once, install);
    hub->sample = &made->sample;
    // Threads of a dispatch queue hold all signals back, and so do those that they make.
    sigset_t signals, before;
    only_ours(&signals);
    pthread_sigmask(SIG_UNBLOCK, &signals, &before);
    made->was_blocked = sigismember(&before, SAMPLE_SIGNAL) == 1;
    return 0;
}

void gevent_sampling_stop(gevent_hub *hub) {
    request *given = (request *)hub->sample;
    if (!given) return;
    if (given->was_blocked) {
        sigset_t signals;
        only_ours(&signals);
        pthread_sigmask(SIG_BLOCK, &signals, NULL);
    }
    // The handler runs on this very thread: before this line or after it.
    *(gevent_sample *volatile *)&hub->sample = NULL;
    free(given);
}

void gevent_sampling_reset(gevent_hub *hub) {
    request *given = (request *)hub->sample;
    if (!given) return;
    given->sample.state = IDLE;
    given->thread = gevent_this_thread_number();
}

/// Returns whether the handler has answered.
static bool wait_for_answer(gevent_sample *sample, unsigned milliseconds) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t deadline = now.tv_sec * INT64_C(1000000000) + now.tv_nsec + milliseconds * INT64_C(1000000);
    for (;;) {
        uint32_t state = __atomic_load_n(&sample->state, __ATOMIC_ACQUIRE);
        if (state == TAKEN) return true;
        // The handler never waits, so once it is at work its end is waited for without a limit.
        if (gevent_futex_wait(&sample->state, state, state == WANTED ? deadline : INT64_MAX) == ETIMEDOUT &&
            takes(sample, WANTED, IDLE))
            return false;
    }
}

/// Asks the thread by the signal. Returns whether it answered.
static bool ask(request *asked, pthread_t thread, unsigned milliseconds) {
    gevent_sample *sample = &asked->sample;
    __atomic_store_n(&sample->state, WANTED, __ATOMIC_RELEASE);
    union sigval mark = {.sival_ptr = &previous};
    // If it cannot be sent, somebody else's signal may still be answered.
    bool is_sent = pthread_sigqueue(thread, SAMPLE_SIGNAL, mark) == 0;
    bool is_taken = wait_for_answer(sample, is_sent ? milliseconds : 0);
    __atomic_store_n(&sample->state, IDLE, __ATOMIC_RELAXED);
    return is_taken;
}

// MARK: sleeping threads

/// Where a thread is that sleeps in the kernel, as the kernel tells it.
typedef struct sleep_place {
    long system_call;  // -1 if it is not in one: it waits for a page
    uintptr_t arguments[6];
    uintptr_t stack_pointer, program_counter;
} sleep_place;

/// Returns whether the thread sleeps; if not it runs, waits for a processor, or the kernel does not tell.
static bool find_sleep(int thread, sleep_place *place) {
    char path[64], text[256];
    snprintf(path, sizeof path, "/proc/self/task/%d/syscall", thread);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return false;
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    if (length <= 0) return false;
    text[length] = 0;
    *place = (sleep_place){0};
    uintptr_t *arguments = place->arguments;
    int count = sscanf(
        text, "%ld %" SCNxPTR " %" SCNxPTR " %" SCNxPTR " %" SCNxPTR " %" SCNxPTR " %" SCNxPTR " %" SCNxPTR
        " %" SCNxPTR, &place->system_call, &arguments[0], &arguments[1], &arguments[2], &arguments[3], &arguments[4],
        &arguments[5], &place->stack_pointer, &place->program_counter);
    if (count == 9) return true;
    // Outside a call there are no arguments.
    if (count != 3 || place->system_call >= 0) return false;
    place->stack_pointer = arguments[0];
    place->program_counter = arguments[1];
    return true;
}

size_t gevent_copy_memory(void *to, uintptr_t from, size_t size) {
    struct iovec local = {to, size}, remote = {(void *)from, size};
    ssize_t count = process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
    return count < 0 ? 0 : (size_t)count;
}

/// Whether the lock at `address`, as Swift and the kernel have it, is held by the thread.
static bool is_held(uintptr_t address, int thread) {
    uint32_t word;
    if (gevent_copy_memory(&word, address, sizeof word) != sizeof word) return false;
    return (word & FUTEX_TID_MASK) == (uint32_t)thread;
}

/// The same of a pthread_mutex_t, as the C library has it on both architectures: the word that is slept on, a count,
/// and the owner's number.
static bool is_held_mutex(uintptr_t address, int thread) {
    enum { CONTENDED = 2, OWNER = 2 };
    uint32_t words[3];
    if (gevent_copy_memory(words, address, sizeof words) != sizeof words) return false;
    return words[0] == CONTENDED && words[OWNER] == (uint32_t)thread;
}

/// The lock that the thread sleeps for although it holds it itself, or 0.
static uintptr_t own_lock_asleep(const sleep_place *place, int thread) {
    if (place->system_call != SYS_futex) return 0;
    switch ((int)place->arguments[1] & FUTEX_CMD_MASK) {
    case FUTEX_LOCK_PI: return is_held(place->arguments[0], thread) ? place->arguments[0] : 0;
    case FUTEX_WAIT:
    case FUTEX_WAIT_BITSET: return is_held_mutex(place->arguments[0], thread) ? place->arguments[0] : 0;
    default: return 0;
    }
}

/// The same for a thread that the kernel does not let sleep.
static uintptr_t own_lock_refused(const request *asked) {
    for (size_t i = 0; i < asked->refused_count; i++)
        if (is_held(asked->refused[i], asked->thread)) return asked->refused[i];
    return 0;
}

/// A sample of a thread that sleeps in the kernel, taken without waking it: a signal would cut its call short. Its
/// memory stands still while it sleeps; that it has slept all the time shows when it is looked at again. Returns
/// whether there is one.
LOOKS static bool take_asleep(const gevent_hub *hub, request *asked) {
    gevent_sample *sample = &asked->sample;
    sleep_place before, after;
    if (!find_sleep(asked->thread, &before)) return false;
    sample->activity = gevent_hub_activity(hub);
    const gevent_context *context = describe_current(hub, sample);
    gevent_copy_memory(&sample->who.isa, (uintptr_t)sample->who.owner, sizeof sample->who.isa);
    sample->program_counter = before.program_counter;
    sample->frame_pointer = sample->link_register = 0;
    size_t count = words_to_copy(context, sample, before.stack_pointer);
    size_t size = gevent_copy_memory(sample->words, sample->stack_pointer, count * sizeof *sample->words);
    sample->word_count = size / sizeof *sample->words;
    if (count > 0 && sample->word_count == 0) return false;
    sample->own_lock = own_lock_asleep(&before, asked->thread);
    return find_sleep(asked->thread, &after) && memcmp(&before, &after, sizeof before) == 0;
}

LOOKS const gevent_sample *gevent_sampling_take(
    gevent_hub *hub, pthread_t thread, uint64_t activity, unsigned milliseconds) {
    request *asked = (request *)hub->sample;
    gevent_sample *sample = &asked->sample;
    // It may have been between two calls, or waiting for a processor on its way into one.
    enum { LOOKS_AT_MOST = 3 };
    bool is_taken = false;
    for (int i = 0; i < LOOKS_AT_MOST && !is_taken; i++) is_taken = take_asleep(hub, asked);
    if (!is_taken && is_installed() && ask(asked, thread, milliseconds)) {
        is_taken = true;
        sample->own_lock = own_lock_refused(asked);
    }
    if (is_taken) return sample->activity == activity ? sample : NULL;
    // The thread holds the signal back. Contexts stay readable as long as their hub exists, so a name can be had
    // without it; that it is the name of the right one shows in the activity.
    describe_current(hub, sample);
    sample->own_lock = 0;
    sample->program_counter = 0;
    sample->word_count = 0;
    return gevent_hub_activity(hub) == activity ? sample : NULL;
}

// MARK: backtraces

/// Whether there is a call before `address`.
static bool is_return_address(uintptr_t address) {
#if defined(__x86_64__)
    if (!gevent_is_code(address - 8, 9)) return false;
    const unsigned char *code = (const unsigned char *)address;
    if (code[-5] == 0xe8) return true;
    // The forms of an indirect call, by their lengths.
    static const unsigned char lengths[] = {2, 3, 4, 6, 7};
    for (size_t i = 0; i < sizeof lengths; i++)
        if (code[-lengths[i]] == 0xff && (code[1 - lengths[i]] & 0x38) == 0x10) return true;
    return false;
#elif defined(__aarch64__)
    if (address % 4 || !gevent_is_code(address - 4, 8)) return false;
    uint32_t instruction = ((const uint32_t *)address)[-1];
    return (instruction & 0xfc000000) == 0x94000000 || (instruction & 0xfffffc1f) == 0xd63f0000;
#endif
}

/// Whether the function at `address` has taken its frame record down again.
static bool is_past_frame(uintptr_t address) {
#if defined(__x86_64__)
    if (!gevent_is_code(address - 1, 2)) return false;
    const unsigned char *code = (const unsigned char *)address;
    // At a ret, or behind pop rbp.
    return code[0] == 0xc3 || code[-1] == 0x5d;
#elif defined(__aarch64__)
    if (address % 4 || !gevent_is_code(address - 4, 8)) return false;
    const uint32_t *code = (const uint32_t *)address;
    // At a ret, or behind ldp x29, x30.
    return code[0] == 0xd65f03c0 || (code[-1] & 0xfe407fff) == 0xa8407bfd;
#endif
}

/// The start of the function that the call before `address` names, or 0 if it names none.
static uintptr_t callee(uintptr_t address) {
    uintptr_t target = 0;
#if defined(__x86_64__)
    const unsigned char *code = (const unsigned char *)address;
    int32_t distance;
    if (code[-5] != 0xe8) return 0;
    memcpy(&distance, code - 4, sizeof distance);
    target = address + (uintptr_t)(intptr_t)distance;
#elif defined(__aarch64__)
    uint32_t instruction = ((const uint32_t *)address)[-1];
    if ((instruction & 0xfc000000) != 0x94000000) return 0;
    int32_t words = (int32_t)(instruction << 6) >> 6;
    target = address - 4 + (uintptr_t)(intptr_t)words * 4;
#endif
    // Otherwise it is a stub that leads elsewhere.
    return (uintptr_t)gevent_function_start((const void *)target) == target ? target : 0;
}

/// Whether the function at `address` has set up its frame record there.
static bool has_frame(uintptr_t address) {
    const unsigned char *start = gevent_function_start((const void *)address);
    if (!start || !gevent_is_code((uintptr_t)start, address - (uintptr_t)start + 1)) return false;
    size_t size = address - (uintptr_t)start;
    enum { PROLOGUE = 96 };
    if (size > PROLOGUE) size = PROLOGUE;
#if defined(__x86_64__)
    // mov rbp, rsp
    static const unsigned char sets_frame[] = {0x48, 0x89, 0xe5};
    return memmem(start, size, sets_frame, sizeof sets_frame) != NULL;
#elif defined(__aarch64__)
    // add x29, sp, #…
    for (size_t i = 0; i < size / 4; i++)
        if ((((const uint32_t *)start)[i] & 0xffc003ff) == 0x910003fd) return true;
    return false;
#endif
}

typedef struct walk {
    const gevent_sample *sample;
    gevent_frame *frames;
    size_t count, most;
} walk;

static void add(walk *walk, uintptr_t address, bool is_guess) {
    if (walk->count < walk->most)
        walk->frames[walk->count++] = (gevent_frame){.address = (const void *)address, .is_guess = is_guess};
}

/// The place in the copy of a frame record, or SIZE_MAX if no whole one stands there.
static size_t place_of(const gevent_sample *sample, uintptr_t frame_pointer) {
    if (frame_pointer < sample->stack_pointer || frame_pointer % sizeof(uintptr_t)) return SIZE_MAX;
    size_t place = (frame_pointer - sample->stack_pointer) / sizeof(uintptr_t);
    return sample->word_count >= 2 && place <= sample->word_count - 2 ? place : SIZE_MAX;
}

/// What was called by code with frame records and has none itself, as the C library on x86-64: its return addresses lie
/// somewhere on the stack, among others that were left there. Looks from one place on, up to the record that comes
/// next; if that is not known, finds it. Returns whether it got there.
static bool add_guesses(walk *walk, size_t from, size_t *record) {
    enum { REACH = 512 };
    const gevent_sample *sample = walk->sample;
    // Whose record comes next, if the call to it says so.
    uintptr_t owner = *record == SIZE_MAX ? 0 : callee(sample->words[*record + 1]);
    for (size_t i = from; i < sample->word_count && i < from + REACH && i < *record; i++) {
        uintptr_t word = sample->words[i];
        // Where the frame pointer was used for something else, the first record that was saved is as good.
        if (*record == SIZE_MAX) {
            size_t outer = place_of(sample, word);
            if (outer != SIZE_MAX && outer > i && i + 1 < sample->word_count &&
                is_return_address(sample->words[i + 1])) {
                *record = i;
                return true;
            }
        }
        if (!is_return_address(word)) continue;
        add(walk, word, true);
        if (*record == SIZE_MAX) continue;
        // Its record is the next one.
        if (owner ? (uintptr_t)gevent_function_start((const void *)word) == owner : has_frame(word)) return true;
    }
    return false;
}

/// The same behind a record that leads to `address`, in a function that has none, as where the C library calls back.
/// The records pass over whoever called that function, or end there. Adds nothing unless it gets to `record`; returns
/// that.
static size_t add_hidden_callers(walk *walk, uintptr_t address, size_t inner, size_t record) {
    uintptr_t function = (uintptr_t)gevent_function_start((const void *)address);
    // Without symbols no function has a prologue to look at.
    if (!function || has_frame(address)) return record;
    // It has a record after all.
    if (record != SIZE_MAX && callee(walk->sample->words[record + 1]) == function) return record;
    size_t count = walk->count;
    if (!add_guesses(walk, inner + 2, &record)) walk->count = count;
    return record;
}

size_t gevent_sample_backtrace(const gevent_sample *sample, gevent_frame *frames, size_t most) {
    walk walk = {.sample = sample, .frames = frames, .most = most};
    if (!sample->program_counter) return 0;
    // One further: what is asked for is the call before an address.
    add(&walk, sample->program_counter + 1, false);
    size_t record = place_of(sample, sample->frame_pointer);
    if (record != SIZE_MAX && !is_return_address(sample->words[record + 1])) record = SIZE_MAX;
    // Of a thread that sleeps the frame pointer is not known.
    if (!sample->frame_pointer || !has_frame(sample->program_counter) || is_past_frame(sample->program_counter)) {
        if (sample->link_register && is_return_address(sample->link_register))
            add(&walk, sample->link_register, false);
        else
            add_guesses(&walk, 0, &record);
    }
    while (record != SIZE_MAX) {
        uintptr_t caller = sample->words[record], address = sample->words[record + 1];
        if (!address) break;
        add(&walk, address, false);
        // Callers' frames lie higher. Anything else is code that uses the frame pointer for something else, or the end.
        size_t next = place_of(sample, caller);
        if (next != SIZE_MAX && (next <= record || !is_return_address(sample->words[next + 1]))) next = SIZE_MAX;
        record = add_hidden_callers(&walk, address, record, next);
    }
    return walk.count;
}

// MARK: threads

int gevent_this_thread_number(void) { return (int)syscall(SYS_gettid); }
