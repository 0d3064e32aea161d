package accesslog

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	datav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"

	"github.com/lateen-mesh/lateen/proxy/format"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/match"
	"github.com/lateen-mesh/lateen/proxy/runtime"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

// A filter decides which records are written.
type filter interface{ passes(rec format.Record) bool }

// newFilter compiles an AccessLogFilter; nil lets everything pass.
func newFilter(f *accesslogv3.AccessLogFilter, values *runtime.Values) (filter, error) {
	if f == nil {
		return nil, nil
	}
	switch s := f.GetFilterSpecifier().(type) {
	case *accesslogv3.AccessLogFilter_StatusCodeFilter:
		return status{newComparison(s.StatusCodeFilter.GetComparison(), values)}, nil
	case *accesslogv3.AccessLogFilter_DurationFilter:
		return duration{newComparison(s.DurationFilter.GetComparison(), values)}, nil
	case *accesslogv3.AccessLogFilter_NotHealthCheckFilter:
		return notHealthCheck{}, nil
	case *accesslogv3.AccessLogFilter_TraceableFilter:
		return traceable{}, nil
	case *accesslogv3.AccessLogFilter_RuntimeFilter:
		return newSample(s.RuntimeFilter, values), nil
	case *accesslogv3.AccessLogFilter_AndFilter:
		list, err := newFilters("and_filter", s.AndFilter.GetFilters(), values)
		return all(list), err
	case *accesslogv3.AccessLogFilter_OrFilter:
		list, err := newFilters("or_filter", s.OrFilter.GetFilters(), values)
		return anyOf(list), err
	case *accesslogv3.AccessLogFilter_HeaderFilter:
		h, err := match.NewHeader(s.HeaderFilter.GetHeader())
		if err != nil {
			return nil, fmt.Errorf("header_filter: %w", err)
		}
		return header{h}, nil
	case *accesslogv3.AccessLogFilter_ResponseFlagFilter:
		return newFlags(s.ResponseFlagFilter.GetFlags())
	case *accesslogv3.AccessLogFilter_GrpcStatusFilter:
		return newGRPC(s.GrpcStatusFilter), nil
	case *accesslogv3.AccessLogFilter_MetadataFilter:
		return newMetadata(s.MetadataFilter)
	case *accesslogv3.AccessLogFilter_LogTypeFilter:
		return logTypes{s.LogTypeFilter.GetTypes(), s.LogTypeFilter.GetExclude()}, nil
	case *accesslogv3.AccessLogFilter_ExtensionFilter:
		return nil, fmt.Errorf("extension_filter %q (%s): not supported", s.ExtensionFilter.GetName(), s.ExtensionFilter.GetTypedConfig().GetTypeUrl())
	}
	return nil, errors.New("filter_specifier: not set")
}

func newFilters(field string, list []*accesslogv3.AccessLogFilter, values *runtime.Values) ([]filter, error) {
	var out []filter
	for i, f := range list {
		one, err := newFilter(f, values)
		if err != nil {
			return nil, fmt.Errorf("%s.filters[%d]: %w", field, i, err)
		}
		out = append(out, one)
	}
	return out, nil
}

// notHealthCheck lets pass what no filter took for a health check.
type notHealthCheck struct{}

func (notHealthCheck) passes(rec format.Record) bool { return !rec.Info.HealthCheck }

type (
	all   []filter
	anyOf []filter
)

func (list all) passes(rec format.Record) bool {
	for _, f := range list {
		if !f.passes(rec) {
			return false
		}
	}
	return true
}

func (list anyOf) passes(rec format.Record) bool {
	for _, f := range list {
		if f.passes(rec) {
			return true
		}
	}
	return false
}

// A comparison is a ComparisonFilter; the runtime may have another value for it.
type comparison struct {
	op        accesslogv3.ComparisonFilter_Op
	values    *runtime.Values
	key       string
	otherwise uint64
}

func newComparison(c *accesslogv3.ComparisonFilter, values *runtime.Values) comparison {
	return comparison{c.GetOp(), values, c.GetValue().GetRuntimeKey(), uint64(c.GetValue().GetDefaultValue())}
}

func (c comparison) holds(n int64) bool {
	value := int64(min(c.values.Whole(c.key, c.otherwise), math.MaxInt64))
	switch c.op {
	case accesslogv3.ComparisonFilter_GE:
		return n >= value
	case accesslogv3.ComparisonFilter_LE:
		return n <= value
	case accesslogv3.ComparisonFilter_NE:
		return n != value
	}
	return n == value
}

type status struct{ comparison }

func (f status) passes(rec format.Record) bool { return f.holds(int64(rec.Info.Code)) }

// duration compares milliseconds, of a stream that has not ended those so far.
type duration struct{ comparison }

func (f duration) passes(rec format.Record) bool {
	if rec.Info.End.IsZero() {
		return f.holds(time.Since(rec.Info.Start).Milliseconds())
	}
	return f.holds(rec.Info.End.Sub(rec.Info.Start).Milliseconds())
}

// traceable passes requests whose tracing an operator forced: the request id says so.
type traceable struct{}

func (traceable) passes(rec format.Record) bool {
	const reason, forced = 14, 'a' // of xxxxxxxx-xxxx-Rxxx-xxxx-xxxxxxxxxxxx
	id := requestID(rec)
	return len(id) > reason && id[reason] == forced
}

func requestID(rec format.Record) []byte {
	if rec.Request == nil {
		return nil
	}
	return rec.Request.Headers.Get("x-request-id")
}

// sample passes a share of the requests, the same ones at every proxy that sees
// their request id.
type sample struct {
	share       match.Fraction
	values      *runtime.Values
	key         string // of another numerator
	independent bool
}

func newSample(f *accesslogv3.RuntimeFilter, values *runtime.Values) filter {
	return sample{match.NewFraction(f.GetPercentSampled()), values, f.GetRuntimeKey(), f.GetUseIndependentRandomness()}
}

func (f sample) passes(rec format.Record) bool {
	f.share.Numerator = uint32(min(f.values.Whole(f.key, uint64(f.share.Numerator)), uint64(f.share.Denominator)))
	if id := requestID(rec); !f.independent && len(id) >= 8 {
		if n, err := strconv.ParseUint(string(id[:8]), 16, 64); err == nil {
			return f.share.Of(n)
		}
	}
	return f.share.Of(rand.Uint64())
}

type header struct{ match.Header }

func (f header) passes(rec format.Record) bool {
	if rec.Request == nil {
		return f.Match(&http.Headers{})
	}
	return f.Match(rec.Request)
}

// flags passes records with one of the flags, with any flag where none is named.
type flags []streaminfo.Flag

func newFlags(names []string) (filter, error) {
	known := map[string]streaminfo.Flag{}
	for f := streaminfo.FailedLocalHealthCheck; f <= streaminfo.UnconditionalDropOverload; f++ {
		var one streaminfo.Flags
		one.Set(f)
		known[one.String()] = f
	}
	var out flags
	for _, name := range names {
		f, ok := known[name]
		if !ok {
			return nil, fmt.Errorf("response_flag_filter: flag %q is not known", name)
		}
		out = append(out, f)
	}
	return out, nil
}

func (f flags) passes(rec format.Record) bool {
	if len(f) == 0 {
		return !rec.Info.Flags.Empty()
	}
	return slices.ContainsFunc(f, rec.Info.Flags.Has)
}

// grpc compares the gRPC status, derived from the HTTP status where there is none.
type grpc struct {
	codes   []int
	exclude bool
}

func newGRPC(f *accesslogv3.GrpcStatusFilter) filter {
	out := grpc{exclude: f.GetExclude()}
	for _, s := range f.GetStatuses() {
		out.codes = append(out.codes, int(s))
	}
	return out
}

func (f grpc) passes(rec format.Record) bool {
	const unknown = 2
	code, ok := format.GRPCStatus(rec)
	if !ok {
		code = unknown
	}
	return slices.Contains(f.codes, code) != f.exclude
}

type metadata struct {
	matcher match.Metadata
	absent  bool // what to say when the value is not there
}

func newMetadata(f *accesslogv3.MetadataFilter) (filter, error) {
	out := metadata{absent: f.GetMatchIfKeyNotFound() == nil || f.GetMatchIfKeyNotFound().GetValue()}
	m, err := match.NewMetadata(f.GetMatcher())
	if err != nil {
		return nil, fmt.Errorf("metadata_filter: matcher: %w", err)
	}
	out.matcher = m
	return out, nil
}

func (f metadata) passes(rec format.Record) bool {
	if !f.matcher.Found(rec.Info.Metadata) {
		return f.absent
	}
	return f.matcher.Match(rec.Info.Metadata)
}

type logTypes struct {
	types   []datav3.AccessLogType
	exclude bool
}

func (f logTypes) passes(rec format.Record) bool {
	is := datav3.AccessLogType_DownstreamEnd
	if rec.Request == nil {
		is = datav3.AccessLogType_TcpConnectionEnd
	}
	if known, ok := datav3.AccessLogType_value[rec.Info.LogType]; ok {
		is = datav3.AccessLogType(known)
	}
	return slices.Contains(f.types, is) != f.exclude
}

// A Filter is a compiled AccessLogFilter for others than access logs: local replies are
// chosen by the same. The zero value lets everything pass.
type Filter struct{ filter filter }

// NewFilter compiles f; nil lets everything pass, and nil values are none.
func NewFilter(f *accesslogv3.AccessLogFilter, values *runtime.Values) (Filter, error) {
	out, err := newFilter(f, values)
	return Filter{out}, err
}

// Passes reports that the filter takes the record.
func (f Filter) Passes(rec format.Record) bool { return f.filter == nil || f.filter.passes(rec) }
