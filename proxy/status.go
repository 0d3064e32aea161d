package proxy

import (
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	adminpb "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typepb "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lateen-mesh/lateen/proxy/admin"
	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/upstream"
)

// view is what the admin pages see.
func (s *server) view() admin.View {
	return admin.View{
		State: s.currentState, ServerInfo: s.serverInfo, Dump: s.dump, Clusters: s.clusterStatus, Outliers: s.outliers, Listeners: s.listenerStatus,
		Certs: s.certificates, Unready: s.unready, Runtime: s.boot.runtime.Layers, Modify: s.boot.runtime.Modify,
		Drain: s.drainListeners, Quit: func() { s.quit() }, FailHealthchecks: s.failing.Store,
		ReopenLogs: func() error { s.reopenLogs(); return nil },
		Stats:      s.stats, Log: s.logs,
	}
}

func (s *server) setState(st adminpb.ServerInfo_State) { s.state.Store(int32(st)) }

// currentState: a proxy that fails health checks or drains says so once it was live.
func (s *server) currentState() adminpb.ServerInfo_State {
	st := adminpb.ServerInfo_State(s.state.Load())
	if st == adminpb.ServerInfo_LIVE && s.failing.Load() {
		return adminpb.ServerInfo_DRAINING
	}
	return st
}

// drainListeners is POST /drain_listeners. Graceful tells connections first and stops
// accepting when the drain time is over.
func (s *server) drainListeners(graceful, inboundOnly, skipExit bool) {
	if !graceful || skipExit {
		s.listeners.Drain(inboundOnly, !skipExit)
		return
	}
	s.listeners.Drain(inboundOnly, false)
	s.tasks.Go(func() {
		t := time.NewTimer(s.opts.DrainTime)
		defer t.Stop()
		select {
		case <-t.C:
			s.listeners.Drain(inboundOnly, true)
		case <-s.ctx.Done():
		}
	})
}

func (s *server) serverInfo() *adminpb.ServerInfo {
	up := durationpb.New(time.Since(s.start).Truncate(time.Second))
	o := s.opts
	mode := adminpb.CommandLineOptions_Serve
	if o.Mode == "validate" {
		mode = adminpb.CommandLineOptions_Validate
	}
	strategy, version := adminpb.CommandLineOptions_Gradual, adminpb.CommandLineOptions_v4
	if o.DrainImmediate {
		strategy = adminpb.CommandLineOptions_Immediate
	}
	if o.LocalIPVersion == "v6" {
		version = adminpb.CommandLineOptions_v6
	}
	return &adminpb.ServerInfo{
		Version: Version(), State: s.currentState(), UptimeCurrentEpoch: up, UptimeAllEpochs: up, HotRestartVersion: "disabled", Node: s.node(),
		CommandLineOptions: &adminpb.CommandLineOptions{
			BaseId: uint64(o.BaseID), UseDynamicBaseId: o.DynamicBaseID, Concurrency: uint32(concurrency()), ConfigPath: o.ConfigPath, ConfigYaml: o.ConfigYAML,
			AllowUnknownStaticFields: o.AllowUnknownStatic, RejectUnknownDynamicFields: o.RejectUnknownDynamic, IgnoreUnknownDynamicFields: o.IgnoreUnknownDynamic,
			AdminAddressPath: o.AdminAddressPath, LocalAddressIpVersion: version, LogLevel: o.LogLevel, ComponentLogLevel: o.ComponentLogLevel,
			LogFormat: o.LogFormat, LogPath: o.LogPath, ServiceCluster: o.ServiceCluster, ServiceNode: o.ServiceNode, ServiceZone: o.ServiceZone,
			FileFlushInterval: durationpb.New(o.FlushInterval), DrainTime: durationpb.New(o.DrainTime), ParentShutdownTime: durationpb.New(o.ParentShutdown),
			DrainStrategy: strategy, Mode: mode, DisableHotRestart: o.DisableRestart, RestartEpoch: uint32(o.RestartEpoch),
		},
	}
}

func (s *server) listenerStatus() *adminpb.Listeners {
	out := &adminpb.Listeners{}
	for _, l := range s.listeners.View() {
		if l.Warming {
			continue
		}
		st := &adminpb.ListenerStatus{Name: l.Name}
		for i, a := range l.Addresses {
			if i == 0 {
				st.LocalAddress = addressProto(a)
			} else {
				st.AdditionalLocalAddresses = append(st.AdditionalLocalAddresses, addressProto(a))
			}
		}
		out.ListenerStatuses = append(out.ListenerStatuses, st)
	}
	return out
}

// addressProto reads "ip:port" or a path, with or without "unix:".
func addressProto(s string) *corepb.Address {
	path := strings.TrimPrefix(s, "unix:")
	host, port, err := net.SplitHostPort(s)
	if n, perr := strconv.ParseUint(port, 10, 16); path == s && err == nil && perr == nil {
		return &corepb.Address{Address: &corepb.Address_SocketAddress{SocketAddress: &corepb.SocketAddress{
			Address: host, PortSpecifier: &corepb.SocketAddress_PortValue{PortValue: uint32(n)},
		}}}
	}
	return &corepb.Address{Address: &corepb.Address_Pipe{Pipe: &corepb.Pipe{Path: path}}}
}

// outliers are the clusters with outlier detection, with the means of their success rates.
func (s *server) outliers() map[string][2]float64 {
	found := map[string][2]float64{}
	for _, c := range s.clusters.View() {
		if c.Outlier != nil {
			found[c.Name] = c.Outlier.Average
		}
	}
	return found
}

// percentOf is a rate that there is, nil for none.
func percentOf(v float64) *typepb.Percent {
	if v < 0 {
		return nil
	}
	return &typepb.Percent{Value: v}
}

// rateOf is that of one endpoint.
func rateOf(rates map[*endpoint.Endpoint]float64, e *endpoint.Endpoint) *typepb.Percent {
	if v, ok := rates[e]; ok {
		return percentOf(v)
	}
	return nil
}

func (s *server) clusterStatus() *adminpb.Clusters {
	out := &adminpb.Clusters{}
	for _, c := range s.clusters.View() {
		st := &adminpb.ClusterStatus{
			Name: c.Name, AddedViaApi: c.Dynamic, ObservabilityName: c.StatName, EdsServiceName: c.EDSService,
			CircuitBreakers: &clusterpb.CircuitBreakers{Thresholds: []*clusterpb.CircuitBreakers_Thresholds{
				thresholds(c.Thresholds[0], corepb.RoutingPriority_DEFAULT), thresholds(c.Thresholds[1], corepb.RoutingPriority_HIGH),
			}},
		}
		if r := c.Outlier; r != nil {
			st.SuccessRateEjectionThreshold, st.LocalOriginSuccessRateEjectionThreshold = percentOf(r.Threshold[0]), percentOf(r.Threshold[1])
		}
		for _, e := range c.Endpoints {
			h := hostStatus(e)
			if r := c.Outlier; r != nil {
				h.SuccessRate, h.LocalOriginSuccessRate = rateOf(r.Endpoints[0], e), rateOf(r.Endpoints[1], e)
			}
			st.HostStatuses = append(st.HostStatuses, h)
		}
		out.ClusterStatuses = append(out.ClusterStatuses, st)
	}
	return out
}

func thresholds(t upstream.Thresholds, p corepb.RoutingPriority) *clusterpb.CircuitBreakers_Thresholds {
	return &clusterpb.CircuitBreakers_Thresholds{
		Priority: p, MaxConnections: wrapperspb.UInt32(t.Connections), MaxPendingRequests: wrapperspb.UInt32(t.Pending),
		MaxRequests: wrapperspb.UInt32(t.Requests), MaxRetries: wrapperspb.UInt32(t.Retries),
	}
}

func hostStatus(e *endpoint.Endpoint) *adminpb.HostStatus {
	counter := func(name string, v uint64) *adminpb.SimpleMetric { return &adminpb.SimpleMetric{Name: name, Value: v} }
	gauge := func(name string, v int64) *adminpb.SimpleMetric {
		return &adminpb.SimpleMetric{Name: name, Value: uint64(max(v, 0)), Type: adminpb.SimpleMetric_GAUGE}
	}
	return &adminpb.HostStatus{
		Address: addressProto(e.Address), Hostname: e.Hostname, Weight: e.Weight.Load(), Priority: e.Priority.Load(), HealthStatus: health(e.Unhealthy.Load()),
		Locality: &corepb.Locality{Region: e.Locality.Region, Zone: e.Locality.Zone, SubZone: e.Locality.SubZone},
		Stats: []*adminpb.SimpleMetric{
			counter("cx_connect_fail", e.ConnectFails.Load()), counter("cx_total", e.Connects.Load()), counter("rq_error", e.Errors.Load()),
			counter("rq_success", e.Successes.Load()), counter("rq_timeout", e.Timeouts.Load()), counter("rq_total", e.Requests.Load()),
			gauge("cx_active", e.ActiveConns.Load()), gauge("rq_active", e.Active.Load()), gauge("rq_pending_active", 0),
		},
	}
}

func health(flags uint32) *adminpb.HostHealthStatus {
	h := &adminpb.HostHealthStatus{
		EdsHealthStatus:         corepb.HealthStatus_HEALTHY,
		FailedActiveHealthCheck: flags&endpoint.FailedActiveHealth != 0, FailedOutlierCheck: flags&endpoint.FailedOutlier != 0,
		FailedActiveDegradedCheck: flags&endpoint.DegradedActive != 0, PendingActiveHc: flags&endpoint.PendingActive != 0,
		ActiveHcTimeout: flags&endpoint.TimedOut != 0, ExcludedViaImmediateHcFail: flags&endpoint.Excluded != 0,
		PendingDynamicRemoval: flags&endpoint.PendingRemoval != 0,
	}
	switch {
	case flags&endpoint.FailedEDSHealth != 0:
		h.EdsHealthStatus = corepb.HealthStatus_UNHEALTHY
	case flags&endpoint.Draining != 0:
		h.EdsHealthStatus = corepb.HealthStatus_DRAINING
	case flags&endpoint.Degraded != 0:
		h.EdsHealthStatus = corepb.HealthStatus_DEGRADED
	}
	return h
}

func (s *server) certificates() *adminpb.Certificates {
	out := &adminpb.Certificates{}
	for _, v := range s.secrets.View() {
		c := &adminpb.Certificate{}
		for i, x := range v.Certificates {
			d := certificateDetails(x, v.Name)
			switch {
			case v.Validation:
				c.CaCert = append(c.CaCert, d)
			case i == 0: // who signed it is not told
				c.CertChain = append(c.CertChain, d)
			}
		}
		if len(v.Certificates) > 0 {
			out.Certificates = append(out.Certificates, c)
		}
	}
	return out
}

func certificateDetails(x *x509.Certificate, path string) *adminpb.CertificateDetails {
	d := &adminpb.CertificateDetails{
		Path: path, SerialNumber: fmt.Sprintf("%x", x.SerialNumber), ValidFrom: timestamppb.New(x.NotBefore), ExpirationTime: timestamppb.New(x.NotAfter),
		DaysUntilExpiration: uint64(max(time.Until(x.NotAfter), 0) / (24 * time.Hour)),
	}
	for _, u := range x.URIs {
		d.SubjectAltNames = append(d.SubjectAltNames, &adminpb.SubjectAlternateName{Name: &adminpb.SubjectAlternateName_Uri{Uri: u.String()}})
	}
	for _, n := range x.DNSNames {
		d.SubjectAltNames = append(d.SubjectAltNames, &adminpb.SubjectAlternateName{Name: &adminpb.SubjectAlternateName_Dns{Dns: n}})
	}
	for _, ip := range x.IPAddresses {
		if a, ok := netip.AddrFromSlice(ip); ok {
			d.SubjectAltNames = append(d.SubjectAltNames, &adminpb.SubjectAlternateName{Name: &adminpb.SubjectAlternateName_IpAddress{IpAddress: a.Unmap().String()}})
		}
	}
	return d
}

// unready names what keeps the proxy from being live.
func (s *server) unready() *adminpb.UnreadyTargetsDumps {
	out := &adminpb.UnreadyTargetsDumps{}
	add := func(kind string, names []string) {
		if len(names) > 0 {
			out.UnreadyTargetsDumps = append(out.UnreadyTargetsDumps, &adminpb.UnreadyTargetsDumps_UnreadyTargetsDump{Name: kind, TargetNames: names})
		}
	}
	var clusters, listeners, secrets []string
	for _, c := range s.clusters.View() {
		if c.Warming {
			clusters = append(clusters, c.Name)
		}
	}
	for _, l := range s.listeners.View() {
		if l.Warming {
			listeners = append(listeners, l.Name)
		}
	}
	for _, v := range s.secrets.View() {
		if !v.Ready {
			secrets = append(secrets, v.Name)
		}
	}
	add("cluster", clusters)
	add("listener", listeners)
	add("secret", secrets)
	return out
}
