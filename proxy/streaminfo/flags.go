package streaminfo

import "slices"

// A Flag is one of Envoy's response flags.
type Flag uint8

// The response flags.
const (
	FailedLocalHealthCheck           Flag = iota + 1 // LH
	NoHealthyUpstream                                // UH
	UpstreamRequestTimeout                           // UT
	LocalReset                                       // LR
	UpstreamRemoteReset                              // UR
	UpstreamConnectionFailure                        // UF
	UpstreamConnectionTermination                    // UC
	UpstreamOverflow                                 // UO
	NoRouteFound                                     // NR
	DelayInjected                                    // DI
	FaultInjected                                    // FI
	RateLimited                                      // RL
	UnauthorizedExternalService                      // UAEX
	RateLimitServiceError                            // RLSE
	DownstreamConnectionTermination                  // DC
	UpstreamRetryLimitExceeded                       // URX
	StreamIdleTimeout                                // SI
	InvalidEnvoyRequestHeaders                       // IH
	DownstreamProtocolError                          // DPE
	UpstreamMaxStreamDurationReached                 // UMSDR
	ResponseFromCacheFilter                          // RFCF
	NoFilterConfigFound                              // NFCF
	DurationTimeout                                  // DT
	UpstreamProtocolError                            // UPE
	NoClusterFound                                   // NC
	OverloadManager                                  // OM
	DNSResolutionFailed                              // DF
	DropOverload                                     // DO
	DownstreamRemoteReset                            // DR
	UnconditionalDropOverload                        // UDO
)

var flagNames = [...]struct{ short, long string }{
	{"-", "-"}, {"LH", "FailedLocalHealthCheck"}, {"UH", "NoHealthyUpstream"}, {"UT", "UpstreamRequestTimeout"}, {"LR", "LocalReset"},
	{"UR", "UpstreamRemoteReset"}, {"UF", "UpstreamConnectionFailure"}, {"UC", "UpstreamConnectionTermination"}, {"UO", "UpstreamOverflow"},
	{"NR", "NoRouteFound"}, {"DI", "DelayInjected"}, {"FI", "FaultInjected"}, {"RL", "RateLimited"}, {"UAEX", "UnauthorizedExternalService"},
	{"RLSE", "RateLimitServiceError"}, {"DC", "DownstreamConnectionTermination"}, {"URX", "UpstreamRetryLimitExceeded"}, {"SI", "StreamIdleTimeout"},
	{"IH", "InvalidEnvoyRequestHeaders"}, {"DPE", "DownstreamProtocolError"}, {"UMSDR", "UpstreamMaxStreamDurationReached"},
	{"RFCF", "ResponseFromCacheFilter"}, {"NFCF", "NoFilterConfigFound"}, {"DT", "DurationTimeout"}, {"UPE", "UpstreamProtocolError"},
	{"NC", "NoClusterFound"}, {"OM", "OverloadManagerTerminated"}, {"DF", "DnsResolutionFailed"}, {"DO", "DropOverload"},
	{"DR", "DownstreamRemoteReset"}, {"UDO", "UnconditionalDropOverload"},
}

// Flags are the response flags of a stream in the order in which they were set,
// which is the order in which Envoy prints them ("URX,UF" for an HTTP request whose
// retries were used up, "UF,URX" for a TCP connection).
type Flags struct {
	list [8]Flag
	n    uint8
}

// Set adds a flag; one that is already set keeps its place. More than eight
// different flags on one stream do not occur; the ninth is dropped.
func (f *Flags) Set(flag Flag) {
	if f.Has(flag) || int(f.n) == len(f.list) {
		return
	}
	f.list[f.n] = flag
	f.n++
}

// Has reports whether flag is set.
func (f *Flags) Has(flag Flag) bool {
	return slices.Contains(f.list[:f.n], flag)
}

// Empty reports whether no flag is set.
func (f *Flags) Empty() bool { return f.n == 0 }

// AppendShort appends the short names to b, "-" when none is set. It does not allocate
// beyond b's capacity.
func (f *Flags) AppendShort(b []byte) []byte {
	if f.n == 0 {
		return append(b, '-')
	}
	for i, x := range f.list[:f.n] {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, flagNames[x].short...)
	}
	return b
}

// AppendLong is AppendShort with the names of RESPONSE_FLAGS_LONG.
func (f *Flags) AppendLong(b []byte) []byte {
	if f.n == 0 {
		return append(b, '-')
	}
	for i, x := range f.list[:f.n] {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, flagNames[x].long...)
	}
	return b
}

// String is the short form, "UF,URX"; "-" when none is set.
func (f Flags) String() string { return string(f.AppendShort(nil)) }
