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

#include "gevent_clock.h"
#include "gevent_futex.h"
#include "gevent_hub.h"
#include "gevent_images.h"
#include "gevent_monitor_memory.h"
#include "gevent_processes.h"
#include "gevent_sample.h"

// SIGURG is ignored by default, so a late signal is harmless, and few programs use it.
enum { SAMPLE_SIGNAL = SIGURG };

/// Disables sanitizers for functions that read unsynchronized data: other threads read words that the hub writes with
/// plain stores, and the handler reads stacks that contain poisoned redzones.
#define UNCHECKED __attribute__((noinline, no_sanitize("thread", "address")))

// MARK: counters

// Each counter is an aligned word that only the hub's thread writes, so another thread never reads a torn value. Each
// counter only grows, except that the head of the ready queue decreases by as much as moved_count grows. So if two sums
// are equal, no counter changed between the last read of the first sum and the first read of the second. The code
// concludes nothing else: a sum taken while the head decreases may be off by the number of entries moved, and those run
// next. No other memory is read depending on a sum, so no memory order is needed. The hub's stores on its hot path stay
// plain. The reads are volatile and not atomic, because ThreadSanitizer instruments every atomic.
UNCHECKED static uint64_t read_word(const uint64_t *word) { return *(const volatile uint64_t *)word; }

UNCHECKED uint64_t gevent_hub_activity(const gevent_hub *hub) {
    return read_word(&hub->ready_head) + read_word(&hub->moved_count) + read_word(&hub->root_switch_count) +
           read_word(&hub->handover_count) + read_word(&hub->poll_phase);
}

UNCHECKED bool gevent_hub_is_polling(const gevent_hub *hub) { return read_word(&hub->poll_phase) & 1; }

void gevent_hub_poll_begins(gevent_hub *hub) { hub->poll_phase++; }

void gevent_hub_poll_ends(gevent_hub *hub) { hub->poll_phase++; }

// MARK: the handler

/// The state of a sample, which determines the thread that owns it.
enum {
    IDLE = 0,     // owned by the watcher
    WANTED = 1,   // owned by the first thread that changes this state
    TAKING = 2,   // owned by the handler
    TAKEN = 3,    // owned by the watcher again
};

enum { REFUSED_MOST = 10 };

typedef struct sample_request {
    gevent_sample sample;  // first, so that a pointer to a sample is one to its request
    int thread;            // thread ID of the hub's thread
    bool was_blocked;      // whether the thread blocked the signal before
    uintptr_t refused[REFUSED_MOST];  // candidates for the lock that the kernel refuses to wait for
    size_t refused_count;
} sample_request;

static struct sigaction previous;

static bool change_state(gevent_sample *sample, uint32_t from, uint32_t to) {
    return __atomic_compare_exchange_n(&sample->state, &from, to, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

UNCHECKED void gevent_describe_context(
    const gevent_hub *hub, const gevent_context *context, gevent_identity *identity) {
    identity->owner = *(void *const volatile *)&context->owner;
    identity->isa = NULL;
    identity->kind = context == &hub->main   ? GEVENT_SAMPLE_OF_MAIN
                     : context == &hub->root ? GEVENT_SAMPLE_OF_HUB
                                             : GEVENT_SAMPLE_OF_GREENLET;
    size_t last = sizeof identity->name - 1;
    for (size_t i = 0; i < last; i++) identity->name[i] = ((const volatile char *)context->name)[i];
    identity->name[last] = 0;
}

UNCHECKED static const gevent_context *describe_current(const gevent_hub *hub, gevent_sample *sample) {
    const gevent_context *context = *(gevent_context *const volatile *)&hub->current;
    gevent_describe_context(hub, context, &sample->identity);
    return context;
}

/// Sets the start of the copy of the stack, and returns its length in words.
UNCHECKED static size_t words_to_copy(const gevent_context *context, gevent_sample *sample, uintptr_t stack_pointer) {
    uintptr_t low = (uintptr_t)context->stack_low, high = (uintptr_t)context->stack_high;
    uintptr_t from = (stack_pointer + sizeof(uintptr_t) - 1) & ~(uintptr_t)(sizeof(uintptr_t) - 1);
    sample->stack_pointer = from;
    // During a switch the stack pointer may not belong to the current context.
    if (from < low || from >= high) return 0;
    size_t count = (high - from) / sizeof(uintptr_t);
    return count < GEVENT_SAMPLE_WORDS ? count : GEVENT_SAMPLE_WORDS;
}

UNCHECKED static void copy_stack(const gevent_context *context, gevent_sample *sample, uintptr_t stack_pointer) {
    size_t count = words_to_copy(context, sample, stack_pointer);
    const volatile uintptr_t *words = (const volatile uintptr_t *)sample->stack_pointer;
    for (size_t i = 0; i < count; i++) sample->words[i] = words[i];
    sample->word_count = count;
}

/// Notes the lock that the kernel refuses to wait for. The kernel does not let a thread wait for a lock that names the
/// thread as its owner, as Swift's locks do. The code that retries is nearly always found right after the system call.
static void note_refused(sample_request *request, const ucontext_t *machine) {
    request->refused_count = 0;
#if defined(__x86_64__)
    const greg_t *registers = machine->uc_mcontext.gregs;
    static const unsigned char system_call[] = {0x0f, 0x05};
    if (registers[REG_RAX] != -EDEADLK || memcmp((const char *)registers[REG_RIP] - 2, system_call, 2) != 0) return;
    request->refused[request->refused_count++] = (uintptr_t)registers[REG_RDI];
#elif defined(__aarch64__)
    const uint64_t *registers = (const uint64_t *)machine->uc_mcontext.regs;
    const uint32_t *code = (const uint32_t *)machine->uc_mcontext.pc;
    if ((int64_t)registers[0] != -EDEADLK || code[-1] != 0xd4000001) return;
    // The result has replaced the lock's address. The caller keeps the address in a callee-saved register.
    for (size_t i = 0; i < REFUSED_MOST; i++) request->refused[request->refused_count++] = registers[19 + i];
#endif
}

UNCHECKED static void take(const gevent_hub *hub, gevent_sample *sample, const ucontext_t *machine) {
    sample->activity = gevent_hub_activity(hub);
    note_refused((sample_request *)sample, machine);
    const gevent_context *context = describe_current(hub, sample);
    // The running greenlet is retained, so its first word, the class, can be read.
    sample->identity.isa = sample->identity.owner ? *(void *const volatile *)sample->identity.owner : NULL;
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

/// Handles the sampling signal. Makes only a few calls, all async-signal-safe.
static void handler(int signal, siginfo_t *info, void *machine_context) {
    int error = errno;
    gevent_hub *hub = gevent_this_thread_hub;
    gevent_sample *sample = hub ? hub->sample : NULL;
    if (sample && change_state(sample, WANTED, TAKING)) {
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

/// Whether our handler is still installed. The program may have installed its own since.
static bool is_installed(void) {
    struct sigaction current;
    return sigaction(SAMPLE_SIGNAL, NULL, &current) == 0 && (current.sa_flags & SA_SIGINFO) &&
           current.sa_sigaction == handler;
}

// MARK: samples

const gevent_identity *gevent_sample_identity(const gevent_sample *sample) { return &sample->identity; }

static void fill_with_sample_signal(sigset_t *signals) {
    sigemptyset(signals);
    sigaddset(signals, SAMPLE_SIGNAL);
}

int gevent_sampling_start(gevent_hub *hub) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    sample_request *request = calloc(1, sizeof *request);
    if (!request) return ENOMEM;
    request->thread = gevent_thread_number();
    pthread_once(&once, install);
    hub->sample = &request->sample;
    // Threads of a dispatch queue block all signals, and so do the threads they create.
    sigset_t signals, before;
    fill_with_sample_signal(&signals);
    pthread_sigmask(SIG_UNBLOCK, &signals, &before);
    request->was_blocked = sigismember(&before, SAMPLE_SIGNAL) == 1;
    return 0;
}

void gevent_sampling_stop(gevent_hub *hub) {
    sample_request *request = (sample_request *)hub->sample;
    if (!request) return;
    if (request->was_blocked) {
        sigset_t signals;
        fill_with_sample_signal(&signals);
        pthread_sigmask(SIG_BLOCK, &signals, NULL);
    }
    // The handler runs on this thread, so it cannot run during this store.
    *(gevent_sample *volatile *)&hub->sample = NULL;
    free(request);
}

void gevent_sampling_reset(gevent_hub *hub) {
    sample_request *request = (sample_request *)hub->sample;
    if (!request) return;
    request->sample.state = IDLE;
    request->thread = gevent_thread_number();
}

/// Waits until the handler has answered. Returns false on a timeout.
static bool wait_for_answer(gevent_sample *sample, unsigned milliseconds) {
    int64_t deadline = gevent_monotonic_time() + milliseconds * INT64_C(1000000);
    for (;;) {
        uint32_t state = __atomic_load_n(&sample->state, __ATOMIC_ACQUIRE);
        if (state == TAKEN) return true;
        // The handler never waits, so once it has started the wait has no timeout.
        if (gevent_futex_wait(&sample->state, state, state == WANTED ? deadline : INT64_MAX) == ETIMEDOUT &&
            change_state(sample, WANTED, IDLE))
            return false;
    }
}

/// Requests a sample with the signal. Returns whether the thread answered.
static bool request_sample(sample_request *request, pthread_t thread, unsigned milliseconds) {
    gevent_sample *sample = &request->sample;
    __atomic_store_n(&sample->state, WANTED, __ATOMIC_RELEASE);
    union sigval mark = {.sival_ptr = &previous};
    // Even if sending fails, the handler may have answered for a signal from another sender.
    bool is_sent = pthread_sigqueue(thread, SAMPLE_SIGNAL, mark) == 0;
    bool is_taken = wait_for_answer(sample, is_sent ? milliseconds : 0);
    __atomic_store_n(&sample->state, IDLE, __ATOMIC_RELAXED);
    return is_taken;
}

// MARK: sleeping threads

/// The position of a thread that sleeps in the kernel, as the kernel reports it.
typedef struct sleep_position {
    long system_call;  // -1 if it is not in a system call but waits for a page
    uintptr_t arguments[6];
    uintptr_t stack_pointer, program_counter;
} sleep_position;

/// Finds where the thread sleeps. Returns false if it is runnable, or if the kernel does not report it.
static bool find_sleep(int thread, sleep_position *position) {
    char path[64], text[256];
    snprintf(path, sizeof path, "/proc/self/task/%d/syscall", thread);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return false;
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    if (length <= 0) return false;
    text[length] = 0;
    *position = (sleep_position){0};
    uintptr_t *arguments = position->arguments;
    int count = sscanf(
        text, "%ld %" SCNxPTR " %" SCNxPTR " %" SCNxPTR " %" SCNxPTR " %" SCNxPTR " %" SCNxPTR " %" SCNxPTR
        " %" SCNxPTR, &position->system_call, &arguments[0], &arguments[1], &arguments[2], &arguments[3], &arguments[4],
        &arguments[5], &position->stack_pointer, &position->program_counter);
    if (count == 9) return true;
    // Outside a system call the kernel reports no arguments.
    if (count != 3 || position->system_call >= 0) return false;
    position->stack_pointer = arguments[0];
    position->program_counter = arguments[1];
    return true;
}

size_t gevent_copy_memory(void *to, uintptr_t from, size_t size) {
    struct iovec local = {to, size}, remote = {(void *)from, size};
    ssize_t count = process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
    return count < 0 ? 0 : (size_t)count;
}

/// Whether the thread holds the lock at `address`, in the format of Swift and the kernel.
static bool is_held(uintptr_t address, int thread) {
    uint32_t word;
    if (gevent_copy_memory(&word, address, sizeof word) != sizeof word) return false;
    return (word & FUTEX_TID_MASK) == (uint32_t)thread;
}

/// Whether the thread holds the pthread_mutex_t at `address`. On both architectures the C library stores the futex
/// word, a count, and the owner's thread ID.
static bool is_held_mutex(uintptr_t address, int thread) {
    enum { CONTENDED = 2, OWNER = 2 };
    uint32_t words[3];
    if (gevent_copy_memory(words, address, sizeof words) != sizeof words) return false;
    return words[0] == CONTENDED && words[OWNER] == (uint32_t)thread;
}

/// Returns the lock that the thread sleeps for and holds itself, or 0.
static uintptr_t self_deadlock_asleep(const sleep_position *position, int thread) {
    if (position->system_call != SYS_futex) return 0;
    switch ((int)position->arguments[1] & FUTEX_CMD_MASK) {
    case FUTEX_LOCK_PI: return is_held(position->arguments[0], thread) ? position->arguments[0] : 0;
    case FUTEX_WAIT:
    case FUTEX_WAIT_BITSET: return is_held_mutex(position->arguments[0], thread) ? position->arguments[0] : 0;
    default: return 0;
    }
}

/// Returns the lock that the thread holds itself and that the kernel refuses to wait for, or 0.
static uintptr_t self_deadlock_refused(const sample_request *request) {
    for (size_t i = 0; i < request->refused_count; i++)
        if (is_held(request->refused[i], request->thread)) return request->refused[i];
    return 0;
}

/// Samples a thread that sleeps in the kernel without waking it, because a signal would interrupt its system call. Its
/// stack does not change while it sleeps. A second check confirms that it slept all the time. Returns whether it did.
UNCHECKED static bool take_asleep(const gevent_hub *hub, sample_request *request) {
    gevent_sample *sample = &request->sample;
    sleep_position before, after;
    if (!find_sleep(request->thread, &before)) return false;
    sample->activity = gevent_hub_activity(hub);
    const gevent_context *context = describe_current(hub, sample);
    gevent_copy_memory(&sample->identity.isa, (uintptr_t)sample->identity.owner, sizeof sample->identity.isa);
    sample->program_counter = before.program_counter;
    sample->frame_pointer = sample->link_register = 0;
    size_t count = words_to_copy(context, sample, before.stack_pointer);
    size_t size = gevent_copy_memory(sample->words, sample->stack_pointer, count * sizeof *sample->words);
    sample->word_count = size / sizeof *sample->words;
    if (count > 0 && sample->word_count == 0) return false;
    sample->self_deadlock = self_deadlock_asleep(&before, request->thread);
    return find_sleep(request->thread, &after) && memcmp(&before, &after, sizeof before) == 0;
}

UNCHECKED const gevent_sample *gevent_sampling_take(
    gevent_hub *hub, pthread_t thread, uint64_t activity, unsigned milliseconds) {
    sample_request *request = (sample_request *)hub->sample;
    gevent_sample *sample = &request->sample;
    // Retries, because the thread may be between two system calls, or runnable on its way into one.
    enum { ATTEMPTS_MOST = 3 };
    bool is_taken = false;
    for (int i = 0; i < ATTEMPTS_MOST && !is_taken; i++) is_taken = take_asleep(hub, request);
    if (!is_taken && is_installed() && request_sample(request, thread, milliseconds)) {
        is_taken = true;
        sample->self_deadlock = self_deadlock_refused(request);
    }
    if (is_taken) return sample->activity == activity ? sample : NULL;
    // The thread blocks the signal. Contexts stay readable as long as their hub exists, so the identity can be read
    // from here. An unchanged activity confirms that it is the right one.
    describe_current(hub, sample);
    sample->self_deadlock = 0;
    sample->program_counter = 0;
    sample->word_count = 0;
    return gevent_hub_activity(hub) == activity ? sample : NULL;
}

// MARK: backtraces

/// Whether the instruction before `address` is a call.
static bool is_return_address(uintptr_t address) {
#if defined(__x86_64__)
    if (!gevent_is_code(address - 8, 9)) return false;
    const unsigned char *code = (const unsigned char *)address;
    if (code[-5] == 0xe8) return true;
    // The possible lengths of an indirect call.
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

/// Whether the function at `address` has already removed its frame record.
static bool is_past_frame(uintptr_t address) {
#if defined(__x86_64__)
    if (!gevent_is_code(address - 1, 2)) return false;
    const unsigned char *code = (const unsigned char *)address;
    // At a ret, or after pop rbp.
    return code[0] == 0xc3 || code[-1] == 0x5d;
#elif defined(__aarch64__)
    if (address % 4 || !gevent_is_code(address - 4, 8)) return false;
    const uint32_t *code = (const uint32_t *)address;
    // At a ret, or after ldp x29, x30.
    return code[0] == 0xd65f03c0 || (code[-1] & 0xfe407fff) == 0xa8407bfd;
#endif
}

/// Returns the start of the function that the call before `address` targets, or 0 if that is unknown.
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
    // Any other target is a stub that jumps elsewhere.
    return (uintptr_t)gevent_function_start((const void *)target) == target ? target : 0;
}

/// Whether the function that contains `address` has set up its frame record before `address`.
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

/// Returns the index of a frame record in the copy of the stack, or SIZE_MAX if the copy does not contain all of it.
static size_t record_index(const gevent_sample *sample, uintptr_t frame_pointer) {
    if (frame_pointer < sample->stack_pointer || frame_pointer % sizeof(uintptr_t)) return SIZE_MAX;
    size_t index = (frame_pointer - sample->stack_pointer) / sizeof(uintptr_t);
    return sample->word_count >= 2 && index <= sample->word_count - 2 ? index : SIZE_MAX;
}

/// Scans the stack for return addresses of functions without frame records, such as the C library's on x86-64. Stale
/// addresses may be among them. Scans from index `from` up to the next frame record, which it also searches for if
/// `*record` is SIZE_MAX. Returns whether it reached the record.
static bool add_guesses(walk *walk, size_t from, size_t *record) {
    enum { REACH = 512 };
    const gevent_sample *sample = walk->sample;
    // The function that owns the next record, if the call to it is direct.
    uintptr_t owner = *record == SIZE_MAX ? 0 : callee(sample->words[*record + 1]);
    for (size_t i = from; i < sample->word_count && i < from + REACH && i < *record; i++) {
        uintptr_t word = sample->words[i];
        // If the frame pointer held another value, the first saved record found on the stack serves as well.
        if (*record == SIZE_MAX) {
            size_t outer = record_index(sample, word);
            if (outer != SIZE_MAX && outer > i && i + 1 < sample->word_count &&
                is_return_address(sample->words[i + 1])) {
                *record = i;
                return true;
            }
        }
        if (!is_return_address(word)) continue;
        add(walk, word, true);
        if (*record == SIZE_MAX) continue;
        // The next record belongs to this function.
        if (owner ? (uintptr_t)gevent_function_start((const void *)word) == owner : has_frame(word)) return true;
    }
    return false;
}

/// Scans for callers that the records skip: if the function at `address` has no record of its own, as when the C
/// library calls back, the chain of records skips its callers or ends there. Adds frames only if the scan reaches
/// `record`. Returns the next record.
static size_t add_hidden_callers(walk *walk, uintptr_t address, size_t inner, size_t record) {
    uintptr_t function = (uintptr_t)gevent_function_start((const void *)address);
    // Without a known function start its prologue cannot be checked.
    if (!function || has_frame(address)) return record;
    // The function has a record after all.
    if (record != SIZE_MAX && callee(walk->sample->words[record + 1]) == function) return record;
    size_t count = walk->count;
    if (!add_guesses(walk, inner + 2, &record)) walk->count = count;
    return record;
}

size_t gevent_sample_backtrace(const gevent_sample *sample, gevent_frame *frames, size_t most) {
    walk walk = {.sample = sample, .frames = frames, .most = most};
    if (!sample->program_counter) return 0;
    // Adds 1, because lookups use the call before an address.
    add(&walk, sample->program_counter + 1, false);
    size_t record = record_index(sample, sample->frame_pointer);
    if (record != SIZE_MAX && !is_return_address(sample->words[record + 1])) record = SIZE_MAX;
    // The frame pointer of a sleeping thread is unknown.
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
        // A caller's record is at a higher address. Any other value means that the frame pointer was used for another
        // purpose, or that the chain ends.
        size_t next = record_index(sample, caller);
        if (next != SIZE_MAX && (next <= record || !is_return_address(sample->words[next + 1]))) next = SIZE_MAX;
        record = add_hidden_callers(&walk, address, record, next);
    }
    return walk.count;
}
