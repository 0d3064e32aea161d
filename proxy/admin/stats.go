package admin

import (
	"errors"
	"html"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"regexp/syntax"
	"runtime"
	"strconv"
	"strings"

	"github.com/lateen-mesh/lateen/proxy/stats"
)

var statTypes = map[string]stats.Type{"All": stats.All, "Counters": stats.Counters, "Gauges": stats.Gauges, "Histograms": stats.Histograms, "TextReadouts": stats.TextReadouts}

// bucketModes are those that can be asked for. Prometheus' native histograms are only for
// a form that is not printed here.
var bucketModes = map[string]stats.BucketMode{"": stats.DefaultBuckets, "none": stats.Summary, "cumulative": stats.Cumulative,
	"disjoint": stats.Disjoint, "detailed": stats.Detailed, "summary": stats.Summary, native: stats.DefaultBuckets}

const native = "prometheusnative"

// The forms of the stats page.
const (
	formText       = "text"
	formHTML       = "html"
	formJSON       = "json"
	formPrometheus = "prometheus"
)

// A request is what a stats page is asked for.
type request struct {
	stats.Query
	form string
}

// readRequest reads the parameters of the stats pages; bad is the text of a refusal.
// prometheus says that no other form is possible.
func readRequest(v url.Values, prometheus bool) (q request, bad string) {
	q.UsedOnly, q.Invert, q.Texts = v.Has("usedonly"), v.Has("invert_filter"), v.Has("text_readouts")
	if q.form, bad = readForm(v, prometheus); bad != "" {
		return q, bad
	}
	mode, known := bucketModes[v.Get("histogram_buckets")]
	if !known {
		return q, "usage: /stats?histogram_buckets=(cumulative|disjoint|detailed|summary|prometheusnative)\n"
	}
	if q.Buckets = mode; v.Get("histogram_buckets") == native {
		if q.form == formPrometheus {
			return q, "unsupported prometheusnative histogram type when not using protobuf exposition format"
		}
		return q, "Invalid histogram_buckets type for non prometheus stats type"
	}
	if q.form == formPrometheus && (mode == stats.Disjoint || mode == stats.Detailed) {
		return q, "unsupported prometheus histogram bucket mode"
	}
	if f := v.Get("filter"); f != "" {
		if q.Filter, bad = compileRegexp(f); bad != "" {
			return q, bad
		}
	}
	if t := v.Get("type"); t != "" {
		kind, known := statTypes[t]
		if !known {
			return q, "invalid &type= param"
		}
		q.Type = kind
	}
	if h := v.Get("hidden"); h != "" && h != "include" && h != "only" && h != "exclude" {
		return q, "usage: /stats?hidden=(include|only|exclude)\n\n"
	}
	return q, ""
}

func readForm(v url.Values, prometheus bool) (form, bad string) {
	if prometheus {
		return formPrometheus, ""
	}
	switch f := v.Get("format"); f {
	case "", formText:
		return formText, ""
	case formHTML, "active-html":
		return formHTML, ""
	case formJSON, formPrometheus:
		return f, ""
	}
	return "", "usage: /stats?format=(html|active-html|json|prometheus|text)\n\n"
}

// saidByRE2 are the words of RE2 where Go's are others.
var saidByRE2 = map[syntax.ErrorCode]string{
	syntax.ErrMissingParen: "missing )", syntax.ErrMissingBracket: "missing ]", syntax.ErrTrailingBackslash: "trailing \\",
	syntax.ErrMissingRepeatArgument: "no argument for repetition operator", syntax.ErrInvalidRepeatOp: "bad repetition operator",
	syntax.ErrInvalidPerlOp: "invalid perl operator", syntax.ErrInvalidRepeatSize: "invalid repetition size",
	syntax.ErrInvalidUTF8: "invalid UTF-8", syntax.ErrUnexpectedParen: "unexpected )",
}

// compileRegexp compiles a filter; the error is worded as RE2 and Envoy do.
func compileRegexp(s string) (*regexp.Regexp, string) {
	re, err := regexp.Compile(s)
	if err == nil {
		return re, ""
	}
	text := err.Error()
	if e, is := errors.AsType[*syntax.Error](err); is {
		words := saidByRE2[e.Code]
		if words == "" {
			words = string(e.Code)
		}
		if text = words; e.Expr != "" && e.Code != syntax.ErrTrailingBackslash {
			text += ": " + e.Expr
		}
	}
	return nil, "Invalid re2 regex: " + text
}

func statsPage(s *Server, w http.ResponseWriter, r *http.Request) { s.answerStats(w, r, false) }

func prometheus(s *Server, w http.ResponseWriter, r *http.Request) { s.answerStats(w, r, true) }

func (s *Server) answerStats(w http.ResponseWriter, r *http.Request, prometheus bool) {
	q, bad := readRequest(r.URL.Query(), prometheus)
	if bad != "" {
		fail(w, http.StatusBadRequest, bad)
		return
	}
	switch q.form {
	case formJSON:
		w.Header().Set("content-type", "application/json")
		s.send(s.view.Stats.WriteJSON(w, q.Query))
	case formPrometheus:
		s.send(s.view.Stats.WritePrometheus(w, q.Query))
	case formHTML:
		var text strings.Builder
		s.send(s.view.Stats.WriteText(&text, q.Query))
		w.Header().Set("content-type", "text/html; charset=UTF-8")
		write(w, "<!DOCTYPE html>\n<html lang='en'>\n<head>\n  <title>Envoy Admin</title>\n</head>\n<body>\n<pre>\n"+html.EscapeString(text.String())+"</pre>\n</body>\n</html>\n")
	default:
		s.send(s.view.Stats.WriteText(w, q.Query))
	}
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
