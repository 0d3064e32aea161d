package local

import (
	"context"
	"errors"
	"fmt"

	"github.com/lateen-mesh/lateen/local/namespace"
)

// CanRunPods returns nil where this machine permits what pods need: namespaces, and rules that
// redirect their traffic. Else the error says what is refused and what can be done. It tries, in
// namespaces that are gone when it returns. bin is the directory of our programs, "" that of this one.
func CanRunPods(ctx context.Context, bin string) error {
	program, err := Options{Bin: bin}.binary(engineProgram)
	if err != nil {
		return err
	}
	_, err = namespace.Probe(ctx, program)
	if refusal, ok := errors.AsType[*namespace.Refusal](err); ok {
		return &Error{fmt.Errorf("no pods can run on this machine: %w", refusal), refusal.Hint}
	}
	return err
}
