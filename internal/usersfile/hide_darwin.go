package usersfile

import "syscall"

const (
	getTermios = syscall.TIOCGETA
	setTermios = syscall.TIOCSETA
)

// The keys that stop the programs of a terminal, and what is there for none.
var stopKeys = []int{syscall.VSUSP, syscall.VDSUSP}

const noKey = 0xff
