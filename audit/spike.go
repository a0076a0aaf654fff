package audit

import (
	"slices"
	"time"
)

type spikeState uint8

const (
	spikeBegins spikeState = iota
	spikeLasts
	spikeOver
)

// spikeNews is what a line says of one agent and tool.
type spikeNews struct {
	state  spikeState
	count  int64 // requests: when it begins, those that exceed the limit; while it lasts, since the last line; when it is over, all of it
	within time.Duration
	ids    []string // of the last requests
}

// requests are those of one agent for one tool. Times are Unix nanoseconds.
//
// With limit+1 of the newest times, in order, the rule is one comparison: there
// is a window (t-window, t] with more than limit requests exactly if at some
// request the oldest of these is less than a window before the newest.
type requests struct {
	times []int64
	ids   []string // of the last ones that came

	began int64 // of the spike; 0: there is none
	told  int64 // when there was a line
	since int64 // requests since then
	total int64 // requests of the spike
}

// add takes in a request. A spike can end and another begin with it.
func (q *requests) add(at int64, id string, limit int, window int64) (news []spikeNews) {
	switch {
	case q.ahead(at, window):
		news = q.end(news)
		q.times, q.ids = q.times[:0], nil
	case q.began != 0 && at-q.times[0] > window: // just before, it was over; this request comes too late to keep it going
		news = q.end(news)
	}
	q.insert(at, limit+1)
	q.ids = appendID(q.ids, id)
	if len(q.times) <= limit || q.times[limit]-q.times[0] >= window {
		return news
	}
	q.since++
	q.total++
	switch {
	case q.began == 0:
		q.began, q.told, q.since, q.total = q.times[0], at, 0, int64(limit)+1
		return append(news, q.news(spikeBegins, q.total, q.times[limit]-q.times[0]))
	case at-q.told >= window:
		n := q.news(spikeLasts, q.since, at-q.told)
		q.told, q.since = at, 0
		return append(news, n)
	}
	return news
}

// insert keeps the newest keep times in order.
func (q *requests) insert(at int64, keep int) {
	i := len(q.times)
	for i > 0 && q.times[i-1] > at {
		i--
	}
	if len(q.times) < keep {
		q.times = slices.Insert(q.times, i, at)
		return
	}
	if i > 0 { // else it is older than all that are kept
		copy(q.times[:i-1], q.times[1:i])
		q.times[i-1] = at
	}
}

// settle ends the spike if the window up to now does not hold it any more.
func (q *requests) settle(now, window int64) (news []spikeNews) {
	if q.began != 0 && (now-q.times[0] >= window || q.ahead(now, window)) {
		return q.end(nil)
	}
	return nil
}

// idle reports whether nothing that came can count in a window from now on; a
// spike has then been settled.
func (q *requests) idle(now, window int64) bool {
	return now-q.newest() >= window || q.ahead(now, window)
}

// ahead reports whether the newest request is so far in the future that the
// clock must have been set back.
func (q *requests) ahead(now, window int64) bool {
	return len(q.times) > 0 && q.newest()-now >= window
}

func (q *requests) newest() int64 { return q.times[len(q.times)-1] }

func (q *requests) end(news []spikeNews) []spikeNews {
	if q.began == 0 {
		return news
	}
	news = append(news, q.news(spikeOver, q.total, q.newest()-q.began))
	q.began, q.told, q.since, q.total = 0, 0, 0, 0
	return news
}

func (q *requests) news(state spikeState, count, within int64) spikeNews {
	return spikeNews{state: state, count: count, within: time.Duration(within), ids: slices.Clone(q.ids)}
}
