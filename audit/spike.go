package audit

import (
	"cmp"
	"slices"
	"time"

	"go.uber.org/zap"
)

const maxAgents = 4 // agents asked for that a line tells: the last ones

type spikeKey struct{ requester, tool string }

func (s *Signals) request(r *Record) {
	requester := cmp.Or(r.Requester, r.Agent)
	if requester == "" {
		return
	}
	at := timeOf(r)
	key := spikeKey{keyText(requester), keyText(r.Tool)}
	agent := "" // another than who asks
	if r.Agent != requester {
		agent = keyText(r.Agent)
	}

	s.mu.Lock()
	var news []spikeNews
	var spilt tally
	q := s.spikes[key]
	if q == nil && s.askers[key.requester] >= s.keysEach {
		key.tool = manySource
		q = s.spikes[key]
	}
	if q == nil && len(s.spikes) >= s.maxKeys {
		s.spill.add(1, r.ID)
		spilt = s.spill.tell(at, s.cfg.Window)
	} else {
		if q == nil {
			q = &requests{}
			s.spikes[key] = q
			s.askers[key.requester]++
		}
		news = q.add(at.UnixNano(), r.ID, agent, s.cfg.GrantRequests, s.cfg.Window.Nanoseconds())
	}
	s.mu.Unlock()

	s.logSpill(spilt)
	for _, n := range news {
		s.logSpike(key, n)
	}
}

func (s *Signals) logSpill(told tally) {
	if told.count > 0 {
		s.cfg.OnSpike(manySource)
		s.cfg.Logger.Warn("grant requests by more requesters than are told apart", zap.String("requester", manySource), zap.String("tool", manySource),
			zap.Int64("count", told.count), zap.Strings("decisions", told.ids))
	}
}

func (s *Signals) logSpike(key spikeKey, n spikeNews) {
	fields := []zap.Field{
		zap.String("requester", key.requester), zap.String("tool", key.tool),
		zap.Int64("count", n.count), zap.Duration("within", n.within),
		zap.Int("limit", s.cfg.GrantRequests), zap.Duration("window", s.cfg.Window),
	}
	if len(n.agents) > 0 {
		fields = append(fields, zap.Strings("agents", n.agents))
	}
	switch n.state {
	case spikeBegins:
		s.cfg.OnSpike(key.tool)
		s.cfg.Logger.Warn("grant requests above the configured rate", append(fields, zap.Strings("decisions", n.ids))...)
	case spikeLasts:
		s.cfg.Logger.Warn("grant requests are still above the configured rate", append(fields, zap.Strings("decisions", n.ids))...)
	case spikeOver:
		s.cfg.Logger.Info("grant requests are no longer above the configured rate", fields...)
	}
}

type spikeState uint8

const (
	spikeBegins spikeState = iota
	spikeLasts
	spikeOver
)

// spikeNews is what a line says of one requester and tool.
type spikeNews struct {
	state  spikeState
	count  int64 // requests: when it begins, those that exceed the limit; while it lasts, since the last line; when it is over, all of it
	within time.Duration
	ids    []string // of the last requests
	agents []string // asked for, other than who asks: the last ones, after "…" if there were more
}

// requests are those of one requester for one tool. Times are Unix nanoseconds.
//
// With limit+1 of the newest times, in order, the rule is one comparison: there
// is a window (t-window, t] with more than limit requests exactly if at some
// request the oldest of these is less than a window before the newest.
type requests struct {
	times []int64
	ids   []string // of the last ones that came

	agents []string // asked for, other than who asks: the last ones
	more   bool     // there were more

	began int64 // of the spike; 0: there is none
	told  int64 // when there was a line
	since int64 // requests since then
	total int64 // requests of the spike
}

// add takes in a request. A spike can end and another begin with it.
func (q *requests) add(at int64, id, agent string, limit int, window int64) (news []spikeNews) {
	switch {
	case q.ahead(at, window):
		news = q.end(news)
		q.times, q.ids, q.agents, q.more = q.times[:0], nil, nil, false
	case q.began != 0 && at-q.times[0] > window: // just before, it was over; this request comes too late to keep it going
		news = q.end(news)
	}
	q.insert(at, limit+1)
	q.ids = appendID(q.ids, id)
	q.askedFor(agent)
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

func (q *requests) askedFor(agent string) {
	if agent == "" {
		return
	}
	if i := slices.Index(q.agents, agent); i >= 0 {
		q.agents = slices.Delete(q.agents, i, i+1)
	} else if len(q.agents) == maxAgents {
		q.agents, q.more = slices.Delete(q.agents, 0, 1), true
	}
	q.agents = append(q.agents, agent)
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
	n := spikeNews{state: state, count: count, within: time.Duration(within), ids: slices.Clone(q.ids)}
	if q.more {
		n.agents = append(n.agents, manySource)
	}
	n.agents = append(n.agents, q.agents...)
	return n
}
