package pubsub

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// TestInquiry: a proxy learns from one server how many clients there are behind the
// loops of others, of its own loops' names and of others', few or very many.
func TestInquiry(t *testing.T) {
	subscribed := map[string]int64{}
	loop := func(k Kind, name string, surplus int) {
		eachBit(bitsOf(surplus), func(bit int) { subscribed[bitName(k, bit, name)]++ })
	}
	sign := func(by int64, patterns ...string) {
		var s signature
		for _, p := range patterns {
			s.change(p, true)
		}
		eachBit(s.bits(), func(bit int) { subscribed[signatureName(bit)] += by })
	}
	numbers := func(names []string) (numbers []int64) {
		for _, name := range names {
			numbers = append(numbers, subscribed[name])
		}
		return numbers
	}
	asker := NewDirectory()
	lists, questions := 0, 0
	ask := func(q *Inquiry) *Inquiry {
		t.Helper()
		for range 5 {
			questions++
			switch q.Take(numbers(q.Names())) {
			case Answered:
				return q
			case ListFirst:
				lists++
				var names []string
				for name := range maps.Keys(subscribed) {
					if strings.HasPrefix(name, strings.TrimSuffix(SurplusPattern, "*")) && subscribed[name] > 0 {
						names = append(names, name)
					}
				}
				asker.Learn(numbers(SignatureNames()), names)
			}
		}
		t.Fatal("it is never answered")
		return nil
	}
	receivers := func(channel string, want int64) {
		t.Helper()
		got := ask(asker.InquireReceivers(Channel, channel)).AllElsewhere()
		apart := ask(asker.InquireSubscribers(Channel, []string{channel})).AllElsewhere() + ask(asker.InquireMatching(channel)).AllElsewhere()
		if got != want || apart != want {
			t.Errorf("%s: %d more, asked apart %d, want %d", channel, got, apart, want)
		}
	}
	receivers("news", 0)
	loop(Channel, "news", 1)
	loop(Channel, "news", 2)
	loop(Channel, "news", 126)
	loop(Shard, "news", 9)
	receivers("news", 129)
	loop(Channel, "news", 128)
	loop(Channel, "news", 70000)
	receivers("news", 129+128+70000)

	// Patterns are not known until they are listed, and are not listed again.
	loop(Pattern, "n*", 3)
	loop(Pattern, "n*", 4)
	loop(Pattern, "ne?s", 1000)
	loop(Pattern, "x*", 5)
	sign(1, "n*")
	sign(1, "n*", "ne?s", "x*")
	lists = 0
	receivers("news", 129+128+70000+1007)
	receivers("nes", 7)
	receivers("x", 5)
	receivers("y", 0)
	if lists != 1 {
		t.Errorf("listed %d times", lists)
	}
	// A loop that shares another pattern: the list is another.
	sign(-1, "n*")
	sign(1, "n*", "[y]")
	loop(Pattern, "[y]", 2)
	receivers("y", 2)
	if lists != 2 {
		t.Errorf("listed %d times", lists)
	}

	// What is this proxy's own is not elsewhere.
	asker.add(Channel, "news", 3, 1, 2)
	asker.add(Pattern, "x*", 7, 2, 5)
	loop(Channel, "news", 2)
	receivers("news", 129+128+70000+1007)
	receivers("x", 0)

	q := ask(asker.InquireSubscribers(Channel, []string{"none", "news"}))
	if got := []int64{q.Elsewhere(0), q.Elsewhere(1)}; !slices.Equal(got, []int64{0, 129 + 128 + 70000}) {
		t.Errorf("subscribers elsewhere: %v", got)
	}
	// A server that answers something else teaches nothing.
	q = asker.InquireReceivers(Channel, "news")
	q.Names()
	if v, n := q.Take([]int64{1, 2, 3}), fmt.Sprint(q.Elsewhere(0)); v != Answered || n != "0" {
		t.Error(v, n)
	}
}
