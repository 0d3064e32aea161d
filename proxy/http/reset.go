package http

import (
	"os"
	"strings"

	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

// A Reset is why an exchange with an upstream broke off before its end. It is an
// error; the router decides by it whether to try again and what to answer.
type Reset struct {
	Reason ResetReason
	// Detail is the transport's own reason, UPSTREAM_TRANSPORT_FAILURE_REASON, "".
	Detail string
	// Unused says that the upstream has provably not seen any byte of the request.
	Unused bool
}

// A ResetReason is one of Envoy's reasons.
type ResetReason uint8

// The reset reasons.
const (
	ConnectionTermination ResetReason = iota
	RemoteConnectionFailure
	LocalConnectionFailure
	ConnectionTimeout
	Overflow
	LocalReset
	RemoteReset
	RemoteRefusedStream
	ProtocolError
)

var resetTexts = [...]string{
	"connection termination", "remote connection failure", "local connection failure", "connection timeout", "overflow",
	"local reset", "remote reset", "remote refused stream reset", "protocol error",
}

// String is the form of Envoy's answer texts: "remote connection failure".
func (r ResetReason) String() string { return resetTexts[r] }

// resetFlags are the response flags of the reasons.
var resetFlags = [...]streaminfo.Flag{
	ConnectionTermination:   streaminfo.UpstreamConnectionTermination,
	RemoteConnectionFailure: streaminfo.UpstreamConnectionFailure,
	LocalConnectionFailure:  streaminfo.UpstreamConnectionFailure,
	ConnectionTimeout:       streaminfo.UpstreamConnectionFailure,
	Overflow:                streaminfo.UpstreamOverflow,
	LocalReset:              streaminfo.LocalReset,
	RemoteReset:             streaminfo.UpstreamRemoteReset,
	RemoteRefusedStream:     streaminfo.UpstreamRemoteReset,
	ProtocolError:           streaminfo.UpstreamProtocolError,
}

// Flag is the response flag of a stream that ended for that reason.
func (r ResetReason) Flag() streaminfo.Flag { return resetFlags[r] }

// Error is the form of response code details: the reason, then the transport's.
func (r *Reset) Error() string {
	text := r.Reason.String()
	if r.Detail != "" {
		text += "|" + r.Detail
	}
	return strings.ReplaceAll(text, " ", "_")
}

// A Late is a time limit of an attempt that passed while its answer was under way. It is
// os.ErrDeadlineExceeded, too.
type Late struct{ Details string } // RESPONSE_CODE_DETAILS

// Error is the details.
func (l *Late) Error() string { return l.Details }

// Is reports that l is a deadline that has passed.
func (l *Late) Is(target error) bool { return target == os.ErrDeadlineExceeded }
