/* Exercises an endpoint with hiredis (RESP2), the library under many others. See
 * package program for the lines it prints. Nothing here reconnects by itself: as in
 * any program with hiredis, redisReconnect and logging in again are the program's. */
#define _GNU_SOURCE
#include <hiredis/hiredis.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *host, *password, *steps_file;
static int port;
static bool failed;

/* What a feature showed so far, and why it failed. */
static char *seen;
static size_t seen_length;
static FILE *out;
static char why[512];

static void begin(void) {
    why[0] = 0;
    out = open_memstream(&seen, &seen_length);
}

static void escape(const char *text, size_t length) {
    for (size_t i = 0; i < length; i++) {
        if (text[i] == '\r') printf("\\r");
        else if (text[i] == '\n') printf("\\n");
        else putchar(text[i]);
    }
}

static void end(const char *name) {
    fclose(out);
    if (why[0]) {
        failed = true;
        printf("FAIL %s %s, after: ", name, why);
    } else {
        printf("ok %s ", name);
    }
    escape(seen, seen_length);
    printf("\n");
    fflush(stdout);
    free(seen);
}

/* fail keeps the first reason; it returns false for its caller to return. */
static bool fail(const char *format, ...) {
    if (why[0] == 0) {
        va_list args;
        va_start(args, format);
        vsnprintf(why, sizeof why, format, args);
        va_end(args);
    }
    return false;
}

static void show(redisReply *r) {
    switch (r->type) {
    case REDIS_REPLY_NIL: fprintf(out, "nil"); break;
    case REDIS_REPLY_INTEGER: fprintf(out, "(int)%lld", r->integer); break;
    case REDIS_REPLY_STATUS: fprintf(out, "+%s", r->str); break;
    case REDIS_REPLY_ERROR: fprintf(out, "-%s", r->str); break;
    case REDIS_REPLY_STRING: fwrite(r->str, 1, r->len, out); break;
    case REDIS_REPLY_ARRAY:
        fputc('[', out);
        for (size_t i = 0; i < r->elements; i++) {
            if (i) fputc(',', out);
            show(r->element[i]);
        }
        fputc(']', out);
        break;
    default: fprintf(out, "type %d", r->type);
    }
}

/* see adds a reply and frees it. */
static bool see(redisContext *c, const char *what, redisReply *r) {
    if (r == NULL) return fail("%s: %s", what, c->errstr);
    fprintf(out, "%s ", what);
    show(r);
    fprintf(out, " | ");
    freeReplyObject(r);
    return true;
}

/* run sends words separated by spaces and adds the reply. */
static bool run(redisContext *c, const char *line) {
    char *words = strdup(line), *rest = words, *word;
    const char *args[64];
    int n = 0;
    while (n < 64 && (word = strsep(&rest, " ")) != NULL) args[n++] = word;
    redisReply *r = redisCommandArgv(c, n, args, NULL);
    free(words);
    return see(c, line, r);
}

static redisContext *dial(const char *pass) {
    struct timeval patience = {5, 0};
    redisContext *c = redisConnectWithTimeout(host, port, patience);
    if (c == NULL || c->err) {
        fail("connect: %s", c ? c->errstr : "no memory");
        return c;
    }
    redisSetTimeout(c, (struct timeval){10, 0});
    if (pass != NULL) {
        redisReply *r = redisCommand(c, "AUTH %s", pass);
        if (r == NULL || r->type == REDIS_REPLY_ERROR) fail("AUTH: %s", r ? r->str : c->errstr);
        if (r) freeReplyObject(r);
    }
    return c;
}

static void connect_(redisContext *c) {
    run(c, "FLUSHALL");
    run(c, "PING");
    run(c, "SELECT 1");
    run(c, "CLIENT SETNAME named");
    run(c, "CLIENT GETNAME");
    run(c, "SELECT 0");
    redisReply *hello = redisCommand(c, "HELLO 2 AUTH default %s SETNAME renamed", password);
    if (hello == NULL || hello->type != REDIS_REPLY_ARRAY || hello->elements != 14)
        fail("HELLO: %s", hello && hello->str ? hello->str : c->errstr);
    else
        for (int i = 0; i < 14; i++)
            if (i == 0 || i == 3 || i == 4 || i == 5 || i == 9 || i == 11 || i == 13) {
                show(hello->element[i]);
                fprintf(out, " | ");
            }
    if (hello) freeReplyObject(hello);
    run(c, "CLIENT GETNAME");
    redisContext *other = dial(NULL);
    run(other, "GET x");
    run(other, "HELLO 2");
    run(other, "AUTH wrong");
    run(other, "QUIT");
    redisFree(other);
}

static void pipelines(redisContext *c) {
    const int n = 10000;
    for (int i = 0; i < n; i++) {
        redisAppendCommand(c, "SET pipe:%d %d", i, i);
        redisAppendCommand(c, "GET pipe:%d", i);
        if (i % 1000 == 500) redisAppendCommand(c, "NOSUCH x");
    }
    int errors = 0;
    redisReply *r;
    for (int i = 0; i < n; i++) {
        for (int j = 0; j < 2 + (i % 1000 == 500); j++) {
            if (redisGetReply(c, (void **)&r) != REDIS_OK) {
                fail("reply %d: %s", i, c->errstr);
                return;
            }
            if (j == 1 && (r->type != REDIS_REPLY_STRING || atoi(r->str) != i)) fail("GET %d: %s", i, r->str ? r->str : "nil");
            errors += r->type == REDIS_REPLY_ERROR;
            freeReplyObject(r);
        }
    }
    fprintf(out, "errors %d", errors);
}

static void transactions(redisContext *c, redisContext *other) {
    static const char *const first[] = {"MULTI", "SET {tx}a 1", "INCR {tx}a", "PING", "HSET {tx}h f v", "EXEC", "MULTI", "SET {tx}a 9", "DISCARD",
                                        "MULTI", "SET {tx}a", "NOSUCH", "EXEC", "MULTI", "LPUSH {tx}a x", "INCR {tx}a", "MULTI", "WATCH x", "EXEC",
                                        "WATCH {tx}a", "MULTI", "SET {tx}a calm", "EXEC", "WATCH {tx}a"};
    for (size_t i = 0; i < sizeof first / sizeof *first; i++) run(c, first[i]);
    run(other, "SET {tx}a other");
    run(c, "MULTI");
    run(c, "SET {tx}a mine");
    run(c, "EXEC");
    run(c, "GET {tx}a");
    run(c, "EXEC");
    run(c, "UNWATCH");
}

/* pushed adds the next reply that nobody asked for. */
static bool pushed(redisContext *c, const char *what) {
    redisReply *r = NULL;
    if (redisGetReply(c, (void **)&r) != REDIS_OK) return fail("%s: %s", what, c->errstr);
    return see(c, what, r);
}

static void pubsub(redisContext *c) {
    redisContext *sub = dial(password);
    run(sub, "SUBSCRIBE news:1 news:2");
    pushed(sub, "second");
    run(sub, "PSUBSCRIBE other:*");
    run(sub, "SSUBSCRIBE {shard}news");
    run(c, "PUBLISH news:2 hello");
    pushed(sub, "message");
    run(c, "PUBLISH other:1 hello");
    pushed(sub, "pmessage");
    run(c, "SPUBLISH {shard}news hello");
    pushed(sub, "smessage");
    run(sub, "PING");
    run(sub, "PING still");
    run(sub, "GET x");
    run(c, "PUBSUB NUMSUB news:1 news:2 none");
    run(c, "PUBSUB CHANNELS news:1*");
    run(sub, "UNSUBSCRIBE news:1");
    run(sub, "UNSUBSCRIBE");
    run(sub, "PUNSUBSCRIBE");
    run(sub, "SUNSUBSCRIBE");
    run(sub, "PING");
    run(sub, "RESET");
    run(sub, "GET x");
    redisFree(sub);
}

static void wake(redisContext *c, redisContext *other, const char *wait, const char *push) {
    /* Written by hand: redisCommand would wait for the reply. */
    char *words = strdup(wait), *rest = words, *word;
    const char *args[64];
    int n = 0, done = 0;
    while (n < 64 && (word = strsep(&rest, " ")) != NULL) args[n++] = word;
    redisAppendCommandArgv(c, n, args, NULL);
    free(words);
    while (!done)
        if (redisBufferWrite(c, &done) != REDIS_OK) {
            fail("%s: %s", wait, c->errstr);
            return;
        }
    usleep(150000);
    run(other, push);
    pushed(c, wait);
}

static void blocking(redisContext *c, redisContext *other) {
    wake(c, other, "BLPOP {q}first {q}queue 5", "RPUSH {q}queue job");
    wake(c, other, "BRPOP {q}queue 5", "RPUSH {q}queue job");
    wake(c, other, "BLMOVE {q}a {q}b LEFT RIGHT 5", "RPUSH {q}a move");
    wake(c, other, "BRPOPLPUSH {q}a {q}b 5", "RPUSH {q}a push");
    wake(c, other, "BLMPOP 5 2 {q}l {q}m LEFT COUNT 10", "RPUSH {q}m x y");
    wake(c, other, "BZPOPMIN ranked 5", "ZADD ranked 1.5 low");
    wake(c, other, "BZPOPMAX ranked 5", "ZADD ranked 1.5 low");
    wake(c, other, "BZMPOP 5 1 ranked MAX", "ZADD ranked 1.5 low");
    wake(c, other, "XREAD BLOCK 5000 STREAMS log $", "XADD log 5-1 a b");
    run(c, "XGROUP CREATE log readers $");
    wake(c, other, "XREADGROUP GROUP readers alice BLOCK 5000 STREAMS log >", "XADD log 6-1 a c");
    run(c, "BLPOP empty 0.2");
    run(c, "BLPOP empty -1");
    run(c, "BLPOP {q}b notanumber");
}

static void scripts(redisContext *c) {
    char line[256], sha[64] = "";
    see(c, "eval", redisCommand(c, "EVAL %s 1 %s %s", "return {KEYS[1], ARGV[1], redis.call('INCR', KEYS[1])}", "{s}n", "arg"));
    see(c, "types", redisCommand(c, "EVAL %s 0", "return {1, 'two', false, {4, 'five'}, redis.status_reply('fine'), 3.99}"));
    redisReply *r = redisCommand(c, "SCRIPT LOAD %s", "return ARGV[1]");
    if (r && r->str) snprintf(sha, sizeof sha, "%s", r->str);
    see(c, "load", r);
    for (int i = 0; i < 4; i++) {
        snprintf(line, sizeof line, "EVALSHA %s 1 s%d arg%d", sha, i, i);
        run(c, line);
    }
    snprintf(line, sizeof line, "SCRIPT EXISTS %s ffffffffffffffffffffffffffffffffffffffff", sha);
    run(c, line);
    run(c, "EVALSHA ffffffffffffffffffffffffffffffffffffffff 0");
    see(c, "error", redisCommand(c, "EVAL %s 1 %s", "return redis.error_reply('MINE is this')", "k"));
    see(c, "fails", redisCommand(c, "EVAL %s 1 %s", "return redis.call('LPUSH', KEYS[1], 'x')", "{s}n"));
    run(c, "SCRIPT FLUSH SYNC");
    snprintf(line, sizeof line, "SCRIPT EXISTS %s", sha);
    run(c, line);
    run(c, "SCRIPT KILL");
}

static void functions(redisContext *c) {
    const char *code = "#!lua name=hiredis\nredis.register_function('hiredis_set', function(keys, args) return redis.call('SET', keys[1], args[1]) end)";
    char line[128];
    see(c, "load", redisCommand(c, "FUNCTION LOAD REPLACE %s", code));
    see(c, "again", redisCommand(c, "FUNCTION LOAD %s", code));
    for (int i = 0; i < 4; i++) {
        snprintf(line, sizeof line, "FCALL hiredis_set 1 f%d x", i);
        run(c, line);
    }
    run(c, "FUNCTION LIST LIBRARYNAME hiredis");
    run(c, "FUNCTION DELETE hiredis");
    run(c, "FCALL hiredis_set 1 f1 x");
    run(c, "FUNCTION KILL");
}

static void scan(redisContext *c) {
    static char found[1000];
    char cursor[32] = "0";
    memset(found, 0, sizeof found);
    for (int i = 0; i < 1000; i++) redisAppendCommand(c, "SET scan:%d x", i);
    for (int i = 0; i < 1000; i++) {
        redisReply *r = NULL;
        if (redisGetReply(c, (void **)&r) != REDIS_OK) {
            fail("SET: %s", c->errstr);
            return;
        }
        freeReplyObject(r);
    }
    do {
        redisReply *r = redisCommand(c, "SCAN %s MATCH scan:* COUNT 39", cursor);
        if (r == NULL || r->type != REDIS_REPLY_ARRAY || r->elements != 2) {
            fail("SCAN: %s", r && r->str ? r->str : c->errstr);
            if (r) freeReplyObject(r);
            return;
        }
        snprintf(cursor, sizeof cursor, "%s", r->element[0]->str);
        for (size_t i = 0; i < r->element[1]->elements; i++) found[atoi(r->element[1]->element[i]->str + 5)] = 1;
        freeReplyObject(r);
    } while (strcmp(cursor, "0") != 0);
    int all = 0;
    for (int i = 0; i < 1000; i++) all += found[i];
    fprintf(out, "keys %d", all);
}

static void values(redisContext *c) {
    size_t n = 16 << 20;
    char *big = malloc(n);
    for (size_t i = 0; i < n; i++) big[i] = (char)(i * 7 + i / 256);
    see(c, "set", redisCommand(c, "SET big %b", big, n));
    redisReply *r = redisCommand(c, "GET big");
    if (r == NULL) fail("GET: %s", c->errstr);
    else fprintf(out, "16 MiB are the same %d | ", r->type == REDIS_REPLY_STRING && (size_t)r->len == n && memcmp(r->str, big, n) == 0);
    if (r) freeReplyObject(r);
    for (int i = 0; i < 20; i++) {
        redisAppendCommand(c, "SET big:%d %b", i, big, (size_t)(1 << 18) + i);
        redisAppendCommand(c, "STRLEN big:%d", i);
    }
    for (int i = 0; i < 40; i++) pushed(c, "pipelined");
    free(big);
    run(c, "DEL big");
}

static void client(redisContext *c) {
    char line[128];
    redisContext *victim = dial(password);
    run(victim, "CLIENT SETNAME victim");
    redisReply *r = redisCommand(victim, "CLIENT ID");
    if (r == NULL) {
        fail("CLIENT ID: %s", victim->errstr);
        return;
    }
    long long id = r->integer;
    freeReplyObject(r);
    r = redisCommand(c, "CLIENT LIST ID %lld", id);
    fprintf(out, "listed %d | ", r && r->str && strstr(r->str, " name=victim ") != NULL);
    if (r) freeReplyObject(r);
    r = redisCommand(c, "CLIENT UNBLOCK %lld", id);
    see(c, "not blocked", r);
    see(c, "kill", redisCommand(c, "CLIENT KILL ID %lld", id));
    see(c, "kill again", redisCommand(c, "CLIENT KILL ID %lld", id));
    r = redisCommand(victim, "PING");
    fprintf(out, "closed %d: %s | ", r == NULL && victim->err == REDIS_ERR_EOF, victim->errstr);
    if (r) freeReplyObject(r);
    if (redisReconnect(victim) != REDIS_OK) fail("reconnect: %s", victim->errstr);
    redisSetTimeout(victim, (struct timeval){10, 0});
    see(victim, "auth", redisCommand(victim, "AUTH %s", password));
    run(victim, "PING");
    r = redisCommand(victim, "CLIENT ID");
    id = r ? r->integer : 0;
    if (r) freeReplyObject(r);
    snprintf(line, sizeof line, "CLIENT UNBLOCK %lld ERROR", id);
    redisAppendCommand(victim, "BLPOP nothing 5");
    int done = 0;
    while (!done && redisBufferWrite(victim, &done) == REDIS_OK) {}
    usleep(150000);
    see(c, "unblock", redisCommand(c, line));
    pushed(victim, "unblocked");
    redisAppendCommand(victim, "CLIENT REPLY SKIP");
    redisAppendCommand(victim, "ECHO unheard");
    redisAppendCommand(victim, "ECHO heard");
    pushed(victim, "reply skip");
    redisAppendCommand(victim, "CLIENT REPLY OFF");
    redisAppendCommand(victim, "ECHO unheard");
    redisAppendCommand(victim, "CLIENT REPLY ON");
    redisAppendCommand(victim, "ECHO heard");
    pushed(victim, "reply off and on");
    pushed(victim, "then");
    redisFree(victim);
}

static void acl(redisContext *c) {
    run(c, "ACL WHOAMI");
    run(c, "ACL SETUSER hiredis reset on >secret ~app:* &app:* +@all -@dangerous");
    run(c, "ACL DRYRUN hiredis GET app:key");
    redisContext *user = dial(NULL);
    run(user, "AUTH hiredis wrong");
    run(user, "AUTH hiredis secret");
    run(user, "ACL WHOAMI");
    run(user, "SET app:key x");
    run(user, "SET key x");
    run(user, "SUBSCRIBE news");
    run(user, "FLUSHALL");
    run(user, "MULTI");
    run(user, "SET key x");
    run(user, "EXEC");
    run(c, "ACL DELUSER hiredis");
    redisFree(user);
}

static void steps(redisContext *c) {
    FILE *in = fopen(steps_file, "r");
    char line[512], name[64] = "";
    if (in == NULL) {
        printf("FAIL steps no file %s\n", steps_file);
        failed = true;
        return;
    }
    while (fgets(line, sizeof line, in)) {
        line[strcspn(line, "\n")] = 0;
        if (line[0] == '[') {
            if (name[0]) end(name);
            line[strcspn(line, "]")] = 0;
            snprintf(name, sizeof name, "%.60s", line + 1);
            begin();
        } else if (line[0] && line[0] != '#') {
            run(c, line);
        }
    }
    if (name[0]) end(name);
    fclose(in);
}

/* The loops that go on while servers die: package program, failover.go, says what
 * must hold. */
static char prefix[64];
static volatile bool stop, popped, arrived;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static long calls, errors, back;
static double gap;
static char said[256], wrong[256];

static void fault(const char *format, ...) {
    va_list args;
    va_start(args, format);
    pthread_mutex_lock(&mutex);
    if (wrong[0] == 0) vsnprintf(wrong, sizeof wrong, format, args);
    pthread_mutex_unlock(&mutex);
    va_end(args);
}

static void failure(const char *text) {
    pthread_mutex_lock(&mutex);
    errors++;
    snprintf(said, sizeof said, "%s", text);
    said[strcspn(said, "\r\n")] = 0;
    pthread_mutex_unlock(&mutex);
    usleep(20000);
}

/* ask sends a command on a connection that is made again when it was lost; NULL
 * after an error, which was counted. */
static redisReply *ask(redisContext **c, const char *format, ...) {
    if (*c == NULL || (*c)->err) {
        if (*c) redisFree(*c);
        *c = redisConnectWithTimeout(host, port, (struct timeval){1, 0});
        if (*c == NULL || (*c)->err) {
            failure(*c ? (*c)->errstr : "no memory");
            return NULL;
        }
        redisSetTimeout(*c, (struct timeval){10, 0});
        redisReply *r = redisCommand(*c, "AUTH %s", password);
        if (r == NULL) {
            failure((*c)->errstr);
            return NULL;
        }
        freeReplyObject(r);
    }
    va_list args;
    va_start(args, format);
    redisReply *r = redisvCommand(*c, format, args);
    va_end(args);
    if (r == NULL) {
        failure((*c)->errstr);
    } else if (r->type == REDIS_REPLY_ERROR) {
        failure(r->str);
        freeReplyObject(r);
        r = NULL;
    }
    return r;
}

static void *pop(void *nothing) {
    redisContext *c = NULL;
    while (!popped) {
        redisReply *r = ask(&c, "BLPOP %slist 1", prefix);
        if (r == NULL) continue;
        if (r->type == REDIS_REPLY_ARRAY && r->elements == 2) {
            if (strcmp(r->element[1]->str, "last") == 0) popped = true;
            else if (strncmp(r->element[1]->str, "item=", 5) != 0) fault("an item of the list: %s", r->element[1]->str);
        }
        freeReplyObject(r);
    }
    return nothing;
}

static void *listen_(void *nothing) {
    redisContext *c = NULL;
    while (!arrived) {
        redisReply *r = ask(&c, "SUBSCRIBE %schannel", prefix);
        if (r == NULL) continue;
        freeReplyObject(r);
        redisSetTimeout(c, (struct timeval){60, 0});
        while (!arrived && redisGetReply(c, (void **)&r) == REDIS_OK) {
            if (r->type == REDIS_REPLY_ARRAY && r->elements == 3 && strcmp(r->element[0]->str, "message") == 0) {
                if (strcmp(r->element[2]->str, "last") == 0) arrived = true;
                else if (strncmp(r->element[2]->str, "news=", 5) != 0) fault("a message: %s", r->element[2]->str);
            }
            freeReplyObject(r);
        }
        if (!arrived) failure(c->errstr);
    }
    return nothing;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void *stopper(void *nothing) {
    char line[16];
    if (fgets(line, sizeof line, stdin) == NULL) line[0] = 0;
    stop = true;
    return nothing;
}

/* write_ sets, reads and counts until stop. */
static void write_(redisContext **c) {
    long long before = 0;
    double good = now();
    for (long i = 1; !stop; i++, usleep(5000)) {
        char key[96];
        redisReply *r;
        snprintf(key, sizeof key, "%s%ld", prefix, i % 12);
        calls += 3;
        if ((r = ask(c, "SET %s %s=%ld", key, key, i)) == NULL) continue;
        freeReplyObject(r);
        if ((r = ask(c, "GET %s", key)) == NULL) continue;
        if (r->type == REDIS_REPLY_STRING) {
            size_t n = strlen(key);
            if (strncmp(r->str, key, n) != 0 || r->str[n] != '=' || atol(r->str + n + 1) > i) fault("GET %s: %s after %ld were set", key, r->str, i);
        }
        freeReplyObject(r);
        if ((r = ask(c, "INCR %scounter", prefix)) == NULL) continue;
        if (r->type != REDIS_REPLY_INTEGER || r->integer < 1 || r->integer > i + 100) fault("INCR: %lld after %ld calls", r->integer, i);
        if (r->integer <= before) back++;
        before = r->integer;
        freeReplyObject(r);
        if (i % 10 == 0) {
            if ((r = ask(c, "RPUSH %slist item=%ld", prefix, i)) == NULL) continue;
            freeReplyObject(r);
            if ((r = ask(c, "PUBLISH %schannel news=%ld", prefix, i)) == NULL) continue;
            freeReplyObject(r);
        }
        if (now() - good > gap) gap = now() - good;
        good = now();
    }
}

static bool exact(redisContext **c) {
    redisReply *r;
    char expected[32];
    for (int i = 0; i < 12; i++) {
        if ((r = ask(c, "SET %s%d end=%d", prefix, i, i)) == NULL) return false;
        freeReplyObject(r);
    }
    for (int i = 0; i < 12; i++) {
        if ((r = ask(c, "GET %s%d", prefix, i)) == NULL) return false;
        snprintf(expected, sizeof expected, "end=%d", i);
        if (r->type != REDIS_REPLY_STRING || strcmp(r->str, expected) != 0) fault("GET of key %d: %s", i, r->str ? r->str : "nil");
        freeReplyObject(r);
    }
    long long before = 0;
    for (int i = 0; i < 10; i++) {
        if ((r = ask(c, "INCR %scounter", prefix)) == NULL) return false;
        bool one = i == 0 || r->integer == before + 1;
        before = r->integer;
        freeReplyObject(r);
        if (!one) return false;
    }
    return true;
}

static void failover(void) {
    pthread_t thread;
    redisContext *c = NULL;
    redisReply *r;
    double deadline;
    snprintf(prefix, sizeof prefix, "failover:hiredis:%d:", (int)getpid());
    pthread_create(&thread, NULL, pop, NULL);
    pthread_create(&thread, NULL, listen_, NULL);
    pthread_create(&thread, NULL, stopper, NULL);
    printf("# ready\n");
    fflush(stdout);
    write_(&c);
    deadline = now() + 10;
    while (!exact(&c))
        if (now() > deadline) {
            fail("one SET, GET and INCR after another: not within 10 s: %s", said);
            break;
        }
    for (deadline = now() + 10; !popped && now() < deadline; usleep(300000))
        if ((r = ask(&c, "RPUSH %slist last", prefix)) != NULL) freeReplyObject(r);
    for (deadline = now() + 10; !arrived && now() < deadline; usleep(300000))
        if ((r = ask(&c, "PUBLISH %schannel last", prefix)) != NULL) freeReplyObject(r);
    if (!popped) fail("the last item did not arrive");
    if (!arrived) fail("the last message did not arrive");
    if (wrong[0]) fail("wrong value: %s", wrong);
    if (back > 3) fail("the counter went back %ld times", back);
    printf("# failover: %ld calls, %ld errors (last: %s), counter went back %ld times, longest time without success %.0fms\n", calls, errors, said, back, gap * 1000);
}

int main(int argc, char **argv) {
    if (argc < 4) {
        fprintf(stderr, "usage: hiredis features HOST PORT STEPS, or hiredis failover HOST PORT\n");
        return 2;
    }
    host = argv[2];
    port = atoi(argv[3]);
    password = getenv("REDIS_PASSWORD");
    if (strcmp(argv[1], "failover") == 0) {
        begin();
        failover();
        end("failover");
        return failed;
    }
    steps_file = argc > 4 ? argv[4] : "";
    begin();
    redisContext *c = dial(password), *other = dial(password);
    connect_(c);
    end("connect");
    begin(), pipelines(c), end("pipelines");
    begin(), transactions(c, other), end("transactions");
    begin(), pubsub(c), end("pubsub");
    begin(), blocking(c, other), end("blocking");
    begin(), scripts(c), end("scripts");
    begin(), functions(c), end("functions");
    begin(), scan(c), end("scan");
    begin(), values(c), end("values");
    begin(), client(c), end("client");
    begin(), acl(c), end("acl");
    printf("none tracking RESP2 only\n");
    steps(c);
    return failed;
}
