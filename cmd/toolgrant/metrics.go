package main

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/toolgrant/toolgrant/audit"
	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
)

// metrics are both doors' Prometheus metrics. Labels come from closed sets: the
// kinds of decision, the reasons, the catalogue's tools and MCP servers. No agent, task or
// grant is ever a label: their number is not ours to bound, and /metrics asks
// nobody who they are.
type metrics struct {
	registry  *prometheus.Registry
	tools     map[string]bool
	decisions *prometheus.CounterVec
	latency   *prometheus.HistogramVec
	records   *prometheus.CounterVec
	outside   *prometheus.CounterVec
	spikes    *prometheus.CounterVec
	reloads   *prometheus.CounterVec
	swept     *prometheus.CounterVec
	issuers   *prometheus.CounterVec
}

// kinds are the decisions that are counted apart; any other is "other".
var kinds = map[string]string{
	"call":                 "call",
	grants.ActionGrant:     "grant",
	grants.ActionStartTask: "start_task",
	grants.ActionEndTask:   "end_task",
	grants.ActionRevoke:    "revoke",
	"show_task":            "read",
	"list_tasks":           "read",
	"list_grants":          "read",
	"sweep":                "sweep",
	"beat":                 "beat",
}

// kindOf is the label of a kind of decision.
func kindOf(kind string) string {
	if known, ok := kinds[kind]; ok {
		return known
	}
	if strings.HasPrefix(kind, grants.ActionMCP) { // what a message to an MCP server asks for beside tools
		return "mcp"
	}
	return "other"
}

func newMetrics() *metrics {
	m := &metrics{registry: prometheus.NewRegistry(), tools: map[string]bool{}}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "toolgrant_" + name, Help: help}, labels)
		m.registry.MustRegister(c)
		return c
	}
	m.decisions = counter("decisions_total", "Decisions of both doors, by kind, outcome and reason.", "kind", "outcome", "reason")
	m.records = counter("audit_records_total", "Requests whose records were written, or could not be (then the answer was no).", "result")
	m.outside = counter("calls_outside_window_total", "Calls without a live grant behind them: each is a violation to look into.", "tool", "reason")
	m.spikes = counter("grant_request_spikes_total", "Times that one requester's requests for a tool went over the configured rate.", "tool")
	m.reloads = counter("policy_reloads_total", "Reloads of the policies, by result.", "result")
	m.swept = counter("policy_sweep_grants_total", "Older grants that were decided anew after a reload, by result.", "result")
	m.issuers = counter("issuer_key_reads_total", "Readings of issuers' keys, by result.", "issuer", "result")
	m.latency = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "toolgrant_decision_seconds", Help: "From a request's arrival to its record.",
		Buckets: []float64{.00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, 1, 5},
	}, []string{"kind"})
	m.registry.MustRegister(m.latency, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// know makes the catalogue's tools labels, and its MCP servers, some of whose
// messages call no tool; before anything is counted by tool.
func (m *metrics) know(cat *catalog.Catalog) {
	called := func(subject string) {
		m.tools[subject] = true
		for _, why := range grants.Reasons() {
			if audit.OutsideWindow(why) {
				m.outside.WithLabelValues(subject, why.String()) // 0 is a value, too: an alert needs one to begin with
			}
		}
	}
	for i := range cat.Servers {
		if cat.Servers[i].MCP != nil {
			called(cat.Servers[i].ID)
		}
		for _, t := range cat.Servers[i].Tools {
			called(t.ID)
			m.spikes.WithLabelValues(t.ID)
		}
	}
}

// gauge shows a value as it is when somebody looks; with one label, or none.
func (m *metrics) gauge(name, help string, value func() float64, label ...string) {
	opts := prometheus.GaugeOpts{Name: "toolgrant_" + name, Help: help}
	if len(label) == 2 {
		opts.ConstLabels = prometheus.Labels{label[0]: label[1]}
	}
	m.registry.MustRegister(prometheus.NewGaugeFunc(opts, value))
}

// refreshed counts a reading of an issuer's keys. Aliases are the configuration's.
func (m *metrics) refreshed(alias string, err error) {
	result := "done"
	if err != nil {
		result = "failed"
	}
	m.issuers.WithLabelValues(alias, result).Inc()
}

// recorded counts the decisions of one request; err is why they are not on
// record.
func (m *metrics) recorded(rs []audit.Record, err error) {
	if err != nil {
		m.records.WithLabelValues("failed").Inc()
		return
	}
	m.records.WithLabelValues("written").Inc()
	for i := range rs {
		r := &rs[i]
		kind := kindOf(r.Kind)
		m.decisions.WithLabelValues(kind, string(r.Outcome), r.Reason.String()).Inc()
		m.latency.WithLabelValues(kind).Observe(float64(r.LatencyUS) / float64(time.Second/time.Microsecond))
	}
}

// outsideWindow counts calls without a live grant behind them.
func (m *metrics) outsideWindow(tool string, why grants.Reason, n int) {
	m.outside.WithLabelValues(m.tool(tool), why.String()).Add(float64(n))
}

// spike counts the beginning of a spike of grant requests.
func (m *metrics) spike(tool string) { m.spikes.WithLabelValues(m.tool(tool)).Inc() }

// tool is a tool's label: what a stranger wrote is none.
func (m *metrics) tool(id string) string {
	if m.tools[id] {
		return id
	}
	return ""
}
