package cluster

import (
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lateen-mesh/lateen/proxy/xds"
)

// The causes of ejection. The first three are rows of failures.
const (
	any5xx = iota
	gateway
	localOrigin
	successRate
	localSuccessRate
	failurePercent
	localFailurePercent
	causes
)

var causeNames = [causes]string{"consecutive_5xx", "consecutive_gateway_failure", "consecutive_local_origin_failure",
	"success_rate", "local_origin_success_rate", "failure_percentage", "local_origin_failure_percentage"}

// outlierConfig is outlier_detection.
type outlierConfig struct {
	limits     [3]uint32      // failures in a row by cause, 0: off
	enforce    [causes]uint32 // percent of ejections that are carried out
	split      bool           // local origin failures count on their own
	interval   time.Duration
	base, most time.Duration // of an ejection
	jitter     time.Duration
	maxPercent uint32
	always     bool // always_eject_one_host
	healed     bool // a health check that passes ends an ejection

	rate, percent statistic
	stdevFactor   float64
	threshold     float64 // percent of failures
}

// statistic is what it takes to judge by rates.
type statistic struct {
	hosts  int    // that had enough requests
	volume uint64 // requests in an interval that are enough
}

func (cfg *config) decodeOutlier(c *clusterv3.Cluster) error {
	o := c.GetOutlierDetection()
	if o == nil {
		return nil
	}
	if err := xds.Only(o, "consecutive_5xx", "interval", "base_ejection_time", "max_ejection_percent", "enforcing_consecutive_5xx",
		"enforcing_success_rate", "success_rate_minimum_hosts", "success_rate_request_volume", "success_rate_stdev_factor",
		"consecutive_gateway_failure", "enforcing_consecutive_gateway_failure", "split_external_local_origin_errors",
		"consecutive_local_origin_failure", "enforcing_consecutive_local_origin_failure", "enforcing_local_origin_success_rate",
		"failure_percentage_threshold", "enforcing_failure_percentage", "enforcing_failure_percentage_local_origin",
		"failure_percentage_minimum_hosts", "failure_percentage_request_volume", "max_ejection_time", "max_ejection_time_jitter",
		"successful_active_health_check_uneject_host", "always_eject_one_host"); err != nil {
		return at("outlier_detection", err)
	}
	x := &outlierConfig{
		limits: [3]uint32{number(o.GetConsecutive_5Xx(), 5), number(o.GetConsecutiveGatewayFailure(), 5), number(o.GetConsecutiveLocalOriginFailure(), 5)},
		enforce: [causes]uint32{number(o.GetEnforcingConsecutive_5Xx(), 100), number(o.GetEnforcingConsecutiveGatewayFailure(), 0),
			number(o.GetEnforcingConsecutiveLocalOriginFailure(), 100), number(o.GetEnforcingSuccessRate(), 100),
			number(o.GetEnforcingLocalOriginSuccessRate(), 100), number(o.GetEnforcingFailurePercentage(), 0),
			number(o.GetEnforcingFailurePercentageLocalOrigin(), 0)},
		split: o.GetSplitExternalLocalOriginErrors(), interval: seconds(o.GetInterval(), 10*time.Second),
		base: seconds(o.GetBaseEjectionTime(), 30*time.Second), most: seconds(o.GetMaxEjectionTime(), 300*time.Second),
		jitter: seconds(o.GetMaxEjectionTimeJitter(), 0), maxPercent: number(o.GetMaxEjectionPercent(), 10),
		always: o.GetAlwaysEjectOneHost().GetValue(), healed: yes(o.GetSuccessfulActiveHealthCheckUnejectHost()),
		rate:        statistic{int(number(o.GetSuccessRateMinimumHosts(), 5)), uint64(number(o.GetSuccessRateRequestVolume(), 100))},
		percent:     statistic{int(number(o.GetFailurePercentageMinimumHosts(), 5)), uint64(number(o.GetFailurePercentageRequestVolume(), 50))},
		stdevFactor: float64(number(o.GetSuccessRateStdevFactor(), 1900)) / 1000, threshold: float64(number(o.GetFailurePercentageThreshold(), 85)),
	}
	x.most = max(x.most, x.base)
	cfg.outlier = x
	return nil
}

// yes is a switch that is on unless it is off.
func yes(v *wrapperspb.BoolValue) bool { return v == nil || v.GetValue() }

func number(v *wrapperspb.UInt32Value, otherwise uint32) uint32 {
	if v == nil {
		return otherwise
	}
	return v.GetValue()
}
