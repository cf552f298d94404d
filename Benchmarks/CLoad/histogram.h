// A histogram of latencies with a precision of 1.6 percent: 64 buckets for each power of two.
#pragma once

#include <stdint.h>

enum { HISTOGRAM_STEPS = 64, HISTOGRAM_SHIFT = 6, HISTOGRAM_BUCKETS = HISTOGRAM_STEPS * 59 };

typedef struct histogram {
    uint64_t counts[HISTOGRAM_BUCKETS];
    uint64_t total, highest;
} histogram;

static inline unsigned histogram_bucket(uint64_t value) {
    if (value < HISTOGRAM_STEPS) return (unsigned)value;
    unsigned power = 63 - (unsigned)__builtin_clzll(value);
    unsigned step = (unsigned)(value >> (power - HISTOGRAM_SHIFT)) & (HISTOGRAM_STEPS - 1);
    return (power - HISTOGRAM_SHIFT + 1) * HISTOGRAM_STEPS + step;
}

static inline void histogram_add(histogram *histogram, uint64_t value) {
    histogram->counts[histogram_bucket(value)]++;
    histogram->total++;
    if (value > histogram->highest) histogram->highest = value;
}

/// The smallest value in the bucket.
static inline double histogram_value(unsigned bucket) {
    if (bucket < HISTOGRAM_STEPS) return bucket;
    unsigned power = bucket / HISTOGRAM_STEPS + HISTOGRAM_SHIFT - 1, step = bucket % HISTOGRAM_STEPS;
    return (double)((uint64_t)(HISTOGRAM_STEPS + step) << (power - HISTOGRAM_SHIFT));
}

/// Returns the value below which this share of all values lies.
static inline double histogram_at(const histogram *histogram, double share) {
    uint64_t wanted = (uint64_t)(share * (double)histogram->total), seen = 0;
    for (unsigned bucket = 0; bucket < HISTOGRAM_BUCKETS; bucket++) {
        seen += histogram->counts[bucket];
        if (seen > wanted) return histogram_value(bucket);
    }
    return (double)histogram->highest;
}
