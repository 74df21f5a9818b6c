# frozen_string_literal: true

# Exercises an endpoint with ruby-redis (RESP2). See package program for the lines it prints.

require "redis"
require "set"
require "timeout"

HOST = ARGV[1]
PORT = ARGV[2].to_i
PASSWORD = ENV.fetch("REDIS_PASSWORD")
$stdout.sync = true

def connect_to(**more)
  Redis.new(**{ host: HOST, port: PORT, password: PASSWORD, timeout: 10 }.merge(more))
end

# Seen collects what a feature showed.
class Seen
  attr_reader :parts

  def initialize
    @parts = []
  end

  def add(what, value)
    @parts << "#{what} #{value.is_a?(String) ? value : value.inspect}"
  end

  # call adds what the block returns, or the server's error and its class.
  def call(what)
    add(what, yield)
  rescue Redis::CommandError => e
    add(what, "#{e.class} #{e.message}")
  end
end

$failed = false

def one_line(text)
  text.b.gsub("\r", "\\r").gsub("\n", "\\n")
end

def check(name)
  seen = Seen.new
  yield seen
  puts "ok #{name} #{one_line(seen.parts.join(' | '))}"
rescue StandardError => e
  $failed = true
  puts "FAIL #{name} #{one_line("#{e.class} #{e.message}, after: #{seen.parts.join(' | ')}")}"
end

def want(what, got, expected)
  raise "#{what}: got #{got.inspect[0, 200]}, want #{expected.inspect[0, 200]}" unless got == expected
end

def later
  Thread.new do
    sleep 0.15
    yield
  end
end

def connect(seen)
  r = connect_to
  seen.call("flushall") { r.flushall }
  named = connect_to(id: "named", username: "default", db: 1)
  seen.call("setname") { named.client(:setname, "named") }
  seen.call("name") { named.client(:getname) }
  seen.add("database", r.client(:list).select { |c| c["name"] == "named" }.map { |c| c["db"] })
  hello = named.call("HELLO", "2", "AUTH", "default", PASSWORD, "SETNAME", "renamed")
  seen.add("proto", hello[hello.index("proto") + 1])
  seen.call("renamed") { named.client(:getname) }
  seen.call("ping") { r.ping("hello") }
  seen.call("wrong password") { connect_to(password: "wrong").ping }
  seen.call("no password") { connect_to(password: nil).ping }
  seen.add("version", r.info("server")["redis_version"])
  seen.call("time") { r.time.length }
end

def pipelines(seen)
  r = connect_to
  replies = r.pipelined do |p|
    5000.times do |i|
      p.set("pipe:#{i}", i)
      p.get("pipe:#{i}")
    end
  end
  want("GETs", replies.each_slice(2).map(&:last), (0...5000).map(&:to_s))
  seen.add("replies", replies.length)
  seen.call("raises") do
    r.pipelined do |p|
      p.set("pipe:x", "1")
      p.call("NOSUCH", "x")
      p.lpush("pipe:x", "2")
    end
  end
  seen.call("mapped") { r.mapped_mget("pipe:1", "pipe:2", "missing") }
end

def transactions(seen)
  r = connect_to
  other = connect_to
  seen.call("exec") do
    r.multi do |m|
      m.set("{tx}a", 1)
      m.incr("{tx}a")
      m.hset("{tx}h", "f", "v")
      m.hgetall("{tx}h")
      m.ping
    end
  end
  seen.call("bad") do
    r.multi do |m|
      m.set("{tx}a", "9")
      m.call("SET", "{tx}a")
    end
  end
  seen.call("wrong type") do
    r.multi do |m|
      m.lpush("{tx}a", "x")
      m.incr("{tx}a")
    end
  end
  seen.call("get") { r.get("{tx}a") }
  [false, true].each do |disturb|
    seen.call("watch") do
      r.watch("{tx}a") do |w|
        other.set("{tx}a", "other") if disturb
        w.multi { |m| m.set("{tx}a", "mine") }
      end
    end
  end
  seen.call("unwatch") do
    r.watch("{tx}a")
    r.unwatch
  end
end

def pubsub(seen)
  r = connect_to
  sub = connect_to
  got = Queue.new
  thread = Thread.new do
    sub.psubscribe("news:*") do |on|
      on.psubscribe { |pattern, n| got << "psubscribe #{pattern} #{n}" }
      on.pmessage do |pattern, channel, message|
        got << "pmessage #{pattern} #{channel} #{message}"
        sub.punsubscribe("news:*") if message == "end"
      end
      on.punsubscribe { |pattern, n| got << "punsubscribe #{pattern} #{n}" }
    end
    sub.subscribe("news:1", "news:2") do |on|
      on.subscribe { |channel, n| got << "subscribe #{channel} #{n}" }
      on.message do |channel, message|
        got << "message #{channel} #{message}"
        sub.unsubscribe if message == "end"
      end
      on.unsubscribe { |channel, n| got << "unsubscribe #{n}" }
    end
    got << "free #{sub.ping}"
  end
  take = lambda do |what, n|
    seen.add(what, Array.new(n) { Timeout.timeout(5) { got.pop } })
  end
  take.call("pattern", 1)
  seen.call("publish") { r.publish("news:7", "hello") }
  take.call("message", 1)
  seen.call("numpat") { r.pubsub("numpat") }
  r.publish("news:7", "end")
  take.call("end and subscriptions", 4)
  seen.call("publish") { r.publish("news:2", "hello") }
  seen.call("numsub") { r.pubsub("numsub", "news:1", "news:2", "none") }
  seen.call("channels") { r.pubsub("channels", "news:*").sort }
  r.publish("news:1", "end")
  take.call("message, end, unsubscribed", 5)
  thread.join(5)
  seen.call("timeout") do
    sub.subscribe_with_timeout(0.3, "quiet") { |on| on.message { raise "nobody published" } }
  rescue Redis::TimeoutError
    "timed out"
  end
end

def blocking(seen)
  r = connect_to
  other = connect_to
  later { other.rpush("{q}queue", "job") }
  seen.call("blpop") { r.blpop("{q}first", "{q}queue", timeout: 5) }
  later { other.rpush("{q}queue", "job") }
  seen.call("brpop") { r.brpop("{q}queue", timeout: 5) }
  later { other.rpush("{q}a", "move") }
  seen.call("blmove") { r.blmove("{q}a", "{q}b", "LEFT", "RIGHT", timeout: 5) }
  later { other.rpush("{q}a", "push") }
  seen.call("brpoplpush") { r.brpoplpush("{q}a", "{q}b", timeout: 5) }
  later { other.zadd("ranked", 1.5, "low") }
  seen.call("bzpopmax") { r.bzpopmax("ranked", timeout: 5) }
  later { other.rpush("{q}m", %w[x y]) }
  seen.call("blmpop") { r.blmpop(5, "{q}l", "{q}m", modifier: "LEFT", count: 10) }
  later { other.xadd("log", { "a" => "b" }, id: "5-1") }
  seen.call("xread") { r.xread("log", "$", block: 5000) }
  seen.call("timeout") { r.blpop("empty", timeout: 1) }
  seen.call("wait") { r.wait(0, 100).is_a?(Integer) }
end

def scripts(seen)
  r = connect_to
  seen.call("eval") { r.eval("return {KEYS[1], ARGV[1], redis.call('INCR', KEYS[1])}", keys: ["{s}n"], argv: ["arg"]) }
  seen.call("no keys") { r.eval("return 42") }
  sha = r.script(:load, "return ARGV[1]")
  seen.add("load", sha)
  %w[s1 s2 s3 s4].each { |key| seen.call("evalsha") { r.evalsha(sha, [key], [key]) } }
  seen.call("in a transaction") do
    r.multi do |m|
      m.evalsha(sha, ["s1"], ["x"])
      m.get("s1")
    end
  end
  seen.call("exists") { r.script(:exists, sha, "f" * 40) }
  seen.call("one") { r.script(:exists, sha) }
  seen.call("unknown") { r.evalsha("f" * 40) }
  seen.call("fails") { r.eval("return redis.call('NOSUCH', KEYS[1])", ["s1"]) }
end

def functions(seen)
  r = connect_to
  code = "#!lua name=ruby\nredis.register_function('ruby_set', function(keys, args) return redis.call('SET', keys[1], args[1]) end)"
  seen.call("load") { r.call("FUNCTION", "LOAD", "REPLACE", code) }
  seen.call("again") { r.call("FUNCTION", "LOAD", code) }
  %w[f1 f2 f3 f4].each { |key| seen.call("fcall") { r.call("FCALL", "ruby_set", "1", key, key) } }
  seen.call("list") { r.call("FUNCTION", "LIST", "LIBRARYNAME", "ruby") }
  seen.call("delete") { r.call("FUNCTION", "DELETE", "ruby") }
end

def scan(seen)
  r = connect_to
  r.pipelined do |p|
    1000.times do |i|
      p.set("scan:#{i}", i)
      p.hset("scanned", "field:#{i}", i)
      p.sadd("sscanned", "member:#{i}")
    end
  end
  seen.add("keys", r.scan_each(match: "scan:*", count: 61).to_set.length)
  seen.add("hashes", r.scan_each(type: "hash", count: 500).to_a.sort)
  seen.add("fields", r.hscan_each("scanned", count: 100).to_h.length)
  seen.add("members", r.sscan_each("sscanned", count: 100).to_set.length)
  seen.call("matched") { r.keys("scan:99*").sort }
  seen.add("size", r.dbsize >= 1002)
end

def values(seen)
  r = connect_to
  big = "0123456789abcdef" * (1 << 20)
  seen.call("set") { r.set("big", big) }
  seen.add("16 MiB are the same", r.get("big") == big)
  binary = "\x00\r\n$-1\r\n\xff".b
  seen.call("set") { r.set(binary, binary) }
  seen.add("binary", r.get(binary).b == binary)
  seen.call("mset") { r.mset(*(0...10).flat_map { |i| ["big:#{i}", big[0, 1 << 18]] }) }
  seen.add("mget", r.mget(*(0...10).map { |i| "big:#{i}" }).map(&:length))
  seen.call("del") { r.del("big", binary) }
end

def client(seen)
  r = connect_to
  victim = connect_to
  victim.client(:setname, "victim")
  number = victim.client(:id)
  seen.add("listed", r.client(:list).count { |c| c["name"] == "victim" })
  seen.call("kill") { r.client(:kill, "ID", number) }
  # It reconnects once on its own.
  seen.call("again") { victim.ping }
  number = victim.client(:id)
  later { r.client(:unblock, number) }
  seen.call("unblocked") { victim.blpop("nothing", timeout: 5) }
  later { r.client(:unblock, number, "ERROR") }
  seen.call("unblocked") { victim.blpop("nothing", timeout: 5) }
end

def acl(seen)
  r = connect_to
  seen.call("whoami") { r.call("ACL", "WHOAMI") }
  seen.call("setuser") { r.call("ACL", "SETUSER", "ruby", "reset", "on", ">secret", "~app:*", "&app:*", "+@all", "-@dangerous") }
  user = connect_to(username: "ruby", password: "secret")
  seen.call("whoami") { user.call("ACL", "WHOAMI") }
  seen.call("own key") { user.set("app:key", "x") }
  seen.call("other key") { user.set("key", "x") }
  seen.call("dangerous") { user.flushall }
  seen.call("in a transaction") do
    user.multi do |m|
      m.set("app:key", "y")
      m.set("key", "y")
    end
  end
  seen.call("deluser") { r.call("ACL", "DELUSER", "ruby") }
end

def steps
  r = connect_to
  sections = {}
  lines = nil
  File.foreach(ARGV[3], chomp: true) do |line|
    if line.start_with?("[")
      lines = sections[line.delete("[]")] = []
    elsif !line.empty? && !line.start_with?("#")
      lines << line
    end
  end
  sections.each do |name, some|
    check(name) do |seen|
      want("steps", some.empty?, false)
      some.each { |line| seen.call("#{line}:") { r.call(*line.split) } }
    end
  end
end

# Course is the loop that goes on while servers die: package program,
# failover.go, says what must hold.
class Course
  def initialize
    @name = "failover:ruby:#{Process.pid}:"
    @wrong = []
    @calls = @errors = @back = 0
    @gap = 0.0
    @said = ""
  end

  def client
    connect_to(reconnect_attempts: 5, reconnect_delay: 0.02, reconnect_delay_max: 0.5, connect_timeout: 1)
  end

  def failure(error)
    @errors += 1
    @said = one_line(error.message)
    sleep 0.02
  end

  def pop
    r = client
    until @popped
      begin
        list, item = r.blpop("#{@name}list", timeout: 1)
      rescue Redis::BaseError => e
        failure(e)
        next
      end
      next if item.nil?

      if item == "last"
        @popped = true
      elsif list != "#{@name}list" || !item.start_with?("item=")
        @wrong << "an item of the list: #{item}"
      end
    end
  end

  # A lost subscription is an error that the application sees; it subscribes again
  # with the same client.
  def listen
    r = client
    until @arrived
      begin
        r.subscribe("#{@name}channel") do |on|
          on.message do |_, message|
            if message == "last"
              @arrived = true
              r.unsubscribe
            elsif !message.start_with?("news=")
              @wrong << "a message: #{message}"
            end
          end
        end
      rescue Redis::BaseError => e
        failure(e)
      end
    end
  end

  def write
    r = client
    i = before = 0
    good = Time.now
    until @stop
      i += 1
      begin
        @calls += 3
        key = "#{@name}#{i % 12}"
        r.set(key, "#{key}=#{i}")
        value = r.get(key)
        unless value.nil?
          of, number = value.split("=")
          @wrong << "GET #{key}: #{value} after #{i} were set" if of != key || number.to_i > i
        end
        n = r.incr("#{@name}counter")
        @wrong << "INCR: #{n} after #{i} calls" if n < 1 || n > i + 100
        @back += 1 if n <= before
        before = n
        if (i % 10).zero?
          r.rpush("#{@name}list", "item=#{i}")
          r.publish("#{@name}channel", "news=#{i}")
        end
        @gap = [@gap, Time.now - good].max
        good = Time.now
      rescue Redis::BaseError => e
        failure(e)
      end
      sleep 0.005
    end
    @writer = r
  end

  def exact(r)
    12.times { |i| r.set("#{@name}#{i}", "end=#{i}") }
    want("GETs", Array.new(12) { |i| r.get("#{@name}#{i}") }, Array.new(12) { |i| "end=#{i}" })
    n = r.incr("#{@name}counter")
    want("INCRs", Array.new(10) { r.incr("#{@name}counter") }, (n + 1..n + 10).to_a)
    true
  end

  def attempt(what)
    deadline = Time.now + 10
    last = nil
    while Time.now < deadline
      begin
        return if yield
      rescue Redis::BaseError, RuntimeError => e
        last = e
      end
    end
    raise "#{what}: not within 10 s: #{last&.message}"
  end

  def run
    threads = [Thread.new { pop }, Thread.new { listen }]
    writer = Thread.new { write }
    puts "# ready"
    $stdin.gets
    @stop = true
    writer.join
    r = @writer
    attempt("one SET, GET and INCR after another") { exact(r) }
    attempt("the last item arrives") do
      r.rpush("#{@name}list", "last")
      sleep 0.3
      @popped
    end
    attempt("the last message arrives") do
      r.publish("#{@name}channel", "last")
      sleep 0.3
      @arrived
    end
    want("wrong values", @wrong, [])
    want("the counter went back at most 3 times", @back <= 3, true)
  ensure
    puts "# failover: #{@calls} calls, #{@errors} errors (last: #{@said}), counter went back #{@back} times, " \
         "longest time without success #{(@gap * 1000).round}ms"
    threads.each(&:kill)
  end
end

if ARGV[0] == "failover"
  check("failover") { Course.new.run }
else
  %w[connect pipelines transactions pubsub blocking scripts functions scan values client acl].each do |name|
    check(name) { |seen| send(name, seen) }
  end
  puts "none tracking RESP2 only"
  steps
end
exit($failed ? 1 : 0)
