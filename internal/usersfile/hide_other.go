//go:build !linux && !darwin && !windows

package usersfile

import (
	"errors"
	"os"
)

// hideInput says that it cannot hide what is typed.
func hideInput(*os.File) (show func(), err error) { return nil, errors.ErrUnsupported }
