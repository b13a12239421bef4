/* Runs for ever, and only where nothing else wants the core: awake.py. */

#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>

int main(void) {
    struct sched_param none = { 0 };
    prctl(PR_SET_PDEATHSIG, SIGKILL);  /* a core that is never idle is nothing to be left behind */
    if (sched_setscheduler(0, SCHED_IDLE, &none) != 0) return 1;
    for (;;) __asm__ volatile("" ::: "memory");
}
