#include "CCxxExceptions.h"

#include <exception>

namespace {

int living = 0;

struct Numbered {
    explicit Numbered(int number) : number(number) { living++; }
    Numbered(const Numbered &other) : number(other.number) { living++; }
    ~Numbered() {
        number = -1;
        living--;
    }
    int number;
};

struct CallAtEnd {
    void (*body)(void *);
    void *context;
    ~CallAtEnd() { body(context); }
};

}  // namespace

extern "C" bool cxx_call_in_catch(int number, void (*body)(void *), void *context) {
    bool isIntact = false;
    try {
        try {
            throw Numbered(number);
        } catch (const Numbered &caught) {
            body(context);
            isIntact = caught.number == number;
            throw;
        }
    } catch (const Numbered &again) {
        return isIntact && again.number == number;
    }
}

extern "C" bool cxx_call_while_unwinding(int number, void (*body)(void *), void *context) {
    try {
        CallAtEnd atEnd{body, context};
        throw Numbered(number);
    } catch (const Numbered &caught) {
        return caught.number == number;
    }
}

extern "C" bool cxx_has_exceptions(void) {
    return std::current_exception() != nullptr || std::uncaught_exceptions() != 0;
}

extern "C" int cxx_living_exceptions(void) { return living; }
