package health

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	datav3 "github.com/envoyproxy/go-control-plane/envoy/data/core/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// A kind is Envoy's name for a check.
type kind = datav3.HealthCheckerType

// A log writes events to files, a line of JSON each. It is opened by the first event; a
// file that cannot be written loses them, and the checks go on.
type log struct {
	paths []string

	mu    sync.Mutex
	files []*os.File
	open  bool
}

func newLog(paths []string) *log { return &log{paths: paths} }

// on reports that somebody wants events.
func (l *log) on() bool { return len(l.paths) > 0 }

func (l *log) healthy(s *session, first bool) {
	l.write(s, &datav3.HealthCheckEvent{Event: &datav3.HealthCheckEvent_AddHealthyEvent{AddHealthyEvent: &datav3.HealthCheckAddHealthy{FirstCheck: first}}})
}

func (l *log) unhealthy(s *session, o outcome) {
	l.write(s, &datav3.HealthCheckEvent{Event: &datav3.HealthCheckEvent_EjectUnhealthyEvent{
		EjectUnhealthyEvent: &datav3.HealthCheckEjectUnhealthy{FailureType: datav3.HealthCheckFailureType(o.cause), HttpStatusCode: uint32(o.status)}}})
}

func (l *log) failed(s *session, o outcome, first bool) {
	l.write(s, &datav3.HealthCheckEvent{Event: &datav3.HealthCheckEvent_HealthCheckFailureEvent{
		HealthCheckFailureEvent: &datav3.HealthCheckFailure{FailureType: datav3.HealthCheckFailureType(o.cause), FirstCheck: first, HttpStatusCode: uint32(o.status)}}})
}

func (l *log) passed(s *session) {
	l.write(s, &datav3.HealthCheckEvent{Event: &datav3.HealthCheckEvent_SuccessfulHealthCheckEvent{SuccessfulHealthCheckEvent: &datav3.HealthCheckSuccessful{}}})
}

func (l *log) degraded(s *session) {
	if s.degraded {
		l.write(s, &datav3.HealthCheckEvent{Event: &datav3.HealthCheckEvent_DegradedHealthyHost{DegradedHealthyHost: &datav3.DegradedHealthyHost{}}})
		return
	}
	l.write(s, &datav3.HealthCheckEvent{Event: &datav3.HealthCheckEvent_NoLongerDegradedHost{NoLongerDegradedHost: &datav3.NoLongerDegradedHost{}}})
}

// write completes an event and writes it.
func (l *log) write(s *session, e *datav3.HealthCheckEvent) {
	if !l.on() {
		return
	}
	at := s.Endpoint.Locality
	e.HealthCheckerType, e.Host, e.ClusterName = s.check.kind.kind(), addressProto(s.Endpoint.Address), s.c.env.Cluster
	e.Timestamp = timestamppb.New(time.Now().Truncate(time.Millisecond))
	e.Locality = &corev3.Locality{Region: at.Region, Zone: at.Zone, SubZone: at.SubZone}
	text, err := protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true}.Marshal(e)
	if err != nil {
		return // a name that is no UTF-8 has no JSON
	}
	var line bytes.Buffer
	if json.Compact(&line, text) != nil {
		return
	}
	line.WriteByte('\n')
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.opened() {
		_, _ = f.Write(line.Bytes()) // the checks do not depend on it
	}
}

// opened are the files. mu is held.
func (l *log) opened() []*os.File {
	if l.open {
		return l.files
	}
	l.open = true
	for _, path := range l.paths {
		if f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644); err == nil { //nolint:gosec // as other logs
			l.files = append(l.files, f)
		}
	}
	return l.files
}

func (l *log) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.files {
		_ = f.Close() // every line is written
	}
	l.files, l.open = nil, true
}

func addressProto(s string) *corev3.Address {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: path}}}
	}
	a, _ := netip.ParseAddrPort(s)
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: a.Addr().String(), PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(a.Port())}}}}
}
