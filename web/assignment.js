// Finds out which assignment of a SIM card is in effect.

/**
 * The assignment in effect at an instant, or else the next one, or else the last one, and which of these it
 * is: { assignment, when: 'now' | 'later' | 'before' }. Null without assignments, which must be of one SIM card
 * and in the order of time.
 */
export function assignmentAt(assignments, instant) {
  const hasBegun = ({ 'valid-from': from }) => from === null || Date.parse(from) <= instant;
  const hasEnded = ({ 'valid-until': until }) => until !== null && Date.parse(until) <= instant;
  const current = assignments.find((assignment) => hasBegun(assignment) && !hasEnded(assignment));
  if (current) return { assignment: current, when: 'now' };
  const next = assignments.find((assignment) => !hasBegun(assignment));
  if (next) return { assignment: next, when: 'later' };
  return assignments.length === 0 ? null : { assignment: assignments.at(-1), when: 'before' };
}
