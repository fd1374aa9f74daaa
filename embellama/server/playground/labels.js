// Labels beside points, so that none covers another label or a point.

const DIRECTIONS = [[1, 0], [-1, 0], [0, -1], [0, 1], [1, -1], [1, 1], [-1, -1], [-1, 1]];
const DISTANCES = [9, 17, 28];

const meet = (one, other) =>
  one.left < other.right && other.left < one.right && one.top < other.bottom && other.top < one.bottom;

/** Find a place for the label of each point, `{x, y, widths, height}`, in a frame: for the first of
 *  its widths that fits. Gives boxes with the `choice` of a width; null where there is no room for
 *  any, as words on words help nobody. */
export function placed(points, frame, radius) {
  const taken = points.map(({ x, y }) => ({
    left: x - radius, right: x + radius, top: y - radius, bottom: y + radius,
  }));
  const isFree = (box) => box.left >= 0 && box.top >= 0 && box.right <= frame.width
    && box.bottom <= frame.height && !taken.some((other) => meet(box, other));
  return points.map((point) => {
    for (const box of candidates(point)) {
      if (isFree(box)) {
        taken.push(box);
        return box;
      }
    }
    return null;
  });
}

function* candidates(point) {
  for (const [choice, width] of point.widths.entries()) {
    for (const distance of DISTANCES) {
      for (const direction of DIRECTIONS) {
        yield { choice, ...beside({ ...point, width }, direction, distance) };
      }
    }
  }
}

function beside({ x, y, width, height }, [right, down], distance) {
  const slant = right && down ? 0.75 : 1;
  const left = x + right * distance * slant + (right > 0 ? 0 : right < 0 ? -width : -width / 2);
  const top = y + down * distance * slant + (down > 0 ? 0 : down < 0 ? -height : -height / 2);
  return { left, top, right: left + width, bottom: top + height };
}
