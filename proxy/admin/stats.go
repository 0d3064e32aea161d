package admin

import (
	"errors"
	"io"
	"net/http"
	"regexp"
	"regexp/syntax"
	"runtime"
	"strconv"
	"strings"

	"github.com/lateen-mesh/lateen/proxy/stats"
)

var statTypes = map[string]stats.Type{"All": stats.All, "Counters": stats.Counters, "Gauges": stats.Gauges, "Histograms": stats.Histograms, "TextReadouts": stats.TextReadouts}

var bucketModes = map[string]stats.BucketMode{"": stats.DefaultBuckets, "cumulative": stats.Cumulative, "disjoint": stats.Disjoint, "summary": stats.Summary}

// statsQuery reads the parameters that all stats pages share.
func statsQuery(r *http.Request) (stats.Query, string) {
	v := r.URL.Query()
	q := stats.Query{UsedOnly: v.Has("usedonly"), Invert: v.Has("invert_filter")}
	if f := v.Get("filter"); f != "" {
		re, err := compileRegexp(f)
		if err != "" {
			return q, err
		}
		q.Filter = re
	}
	if t := v.Get("type"); t != "" {
		kind, known := statTypes[t]
		if !known {
			return q, "invalid &type= param"
		}
		q.Type = kind
	}
	mode, known := bucketModes[v.Get("histogram_buckets")]
	if !known {
		return q, `usage: /stats?histogram_buckets=(cumulative|disjoint|summary)` + "\n"
	}
	q.Buckets = mode
	return q, ""
}

// compileRegexp compiles a filter; the error is worded as RE2 and Envoy do.
func compileRegexp(s string) (*regexp.Regexp, string) {
	re, err := regexp.Compile(s)
	if err == nil {
		return re, ""
	}
	text := err.Error()
	if e, is := errors.AsType[*syntax.Error](err); is {
		text = string(e.Code) + ": " + e.Expr
		if e.Code == syntax.ErrMissingParen {
			text = "missing ): " + e.Expr
		}
	}
	return nil, "Invalid re2 regex: " + text
}

func statsPage(s *Server, w http.ResponseWriter, r *http.Request) {
	q, bad := statsQuery(r)
	format := r.URL.Query().Get("format")
	if bad == "" && format != "" && format != "text" && format != "json" && format != "prometheus" {
		bad = "usage: /stats?format=(html|active-html|text|json)\n\n"
	}
	if bad != "" {
		fail(w, http.StatusBadRequest, bad)
		return
	}
	switch format {
	case "json":
		w.Header().Set("content-type", "application/json")
		s.send(s.view.Stats.WriteJSON(w, q))
	case "prometheus":
		s.send(s.view.Stats.WritePrometheus(w, q))
	default:
		s.send(s.view.Stats.WriteText(w, q))
	}
}

func prometheus(s *Server, w http.ResponseWriter, r *http.Request) {
	q, bad := statsQuery(r)
	if bad != "" {
		fail(w, http.StatusBadRequest, bad)
		return
	}
	s.send(s.view.Stats.WritePrometheus(w, q))
}

// send notes that a page did not get through to the client.
func (s *Server) send(err error) {
	if err != nil && !errors.Is(err, io.ErrClosedPipe) {
		s.log.Debug("admin answer not sent", "error", err)
	}
}

func memory(_ *Server, w http.ResponseWriter, _ *http.Request) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	writeOrdered(w, [][2]string{
		{"allocated", number(m.HeapAlloc)}, {"heap_size", number(m.HeapSys)}, {"pageheap_unmapped", number(m.HeapReleased)},
		{"pageheap_free", number(m.HeapIdle - m.HeapReleased)}, {"total_thread_cache", number(m.StackSys)}, {"total_physical_bytes", number(m.Sys - m.HeapReleased)},
	})
}

func number(n uint64) string { return strconv.FormatUint(n, 10) }

// writeOrdered prints an object of strings in the given order.
func writeOrdered(w http.ResponseWriter, fields [][2]string) {
	w.Header().Set("content-type", "application/json")
	lines := make([]string, len(fields))
	for i, f := range fields {
		lines[i] = " " + strconv.Quote(f[0]) + ": " + strconv.Quote(f[1])
	}
	write(w, "{\n"+strings.Join(lines, ",\n")+"\n}\n")
}
