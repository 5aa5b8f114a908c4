// Elementary functions of floats that LLVM has no code for on AMD's devices, and of halves by way of them. Errors are
// below 5e-7 of the result, of 1 for sin and cos; tests/unit/targets/test_rocm_math.py measures them. The polynomials are
// those of the Cephes library (S. Moshier, single/*.c) if nothing else is said.

#ifndef DSCC_MATH_H_
#define DSCC_MATH_H_

// What is left of x after whole quarters of a turn, and how many they were.
DSCC_FUNCTION float dscc_turned(float x, int* quarters) {
  if (fabs(x) < 1024.0f) {
    float n = rint(x * 0.63661977236758134f);
    *quarters = (int)n;
    float r = fma(n, -1.57079601287841796875f, x);  // pi / 2 in three parts
    r = fma(n, -3.1391647326017846353e-7f, r);
    return fma(n, -5.3903025299577647656e-15f, r);
  }
  double n = rint((double)x * 0.63661977236758134308);
  *quarters = (int)((long)n & 3);
  return (float)fma(n, -6.123233995736766036e-17, fma(n, -1.5707963267948965580, (double)x));
}

DSCC_FUNCTION float dscc_sin(float r) {
  float z = r * r;
  return fma(((-1.9515295891e-4f * z + 8.3321608736e-3f) * z - 1.6666654611e-1f) * z, r, r);
}

DSCC_FUNCTION float dscc_cos(float r) {
  float z = r * r;
  return ((2.443315711809948e-5f * z - 1.388731625493765e-3f) * z + 4.166664568298827e-2f) * z * z - 0.5f * z + 1.0f;
}

DSCC_FUNCTION float sin(float x) {
  int n;
  float r = dscc_turned(x, &n), s = n & 1 ? dscc_cos(r) : dscc_sin(r);
  return n & 2 ? -s : s;
}

DSCC_FUNCTION float cos(float x) {
  int n;
  float r = dscc_turned(x, &n), s = n & 1 ? dscc_sin(r) : dscc_cos(r);
  return (n + 1) & 2 ? -s : s;
}

DSCC_FUNCTION float tan(float x) {
  int n;
  float r = dscc_turned(x, &n), z = r * r;
  float p = ((((9.38540185543e-3f * z + 3.11992232697e-3f) * z + 2.44301354525e-2f) * z + 5.34112807005e-2f) * z +
             1.33387994085e-1f) * z + 3.33331568548e-1f;
  float t = fma(p * z, r, r);
  return n & 1 ? -1.0f / t : t;
}

// Of large arguments by 1 / x, of middling ones by (x - 1) / (x + 1).
DSCC_FUNCTION float atan(float x) {
  float a = fabs(x), shift = 0.0f;
  if (a > 2.414213562373095f) {
    shift = 1.5707963267948966f;
    a = -1.0f / a;
  } else if (a > 0.4142135623730950f) {
    shift = 0.7853981633974483f;
    a = (a - 1.0f) / (a + 1.0f);
  }
  float z = a * a;
  float p = (((8.05374449538e-2f * z - 1.38776856032e-1f) * z + 1.99777106478e-1f) * z - 3.33329491539e-1f) * z;
  return copysign(shift + fma(p, a, a), x);
}

DSCC_FUNCTION float asin(float x) { return atan(x / sqrt((1.0f - x) * (1.0f + x))); }
DSCC_FUNCTION float acos(float x) { return 2.0f * atan(sqrt((1.0f - x) / (1.0f + x))); }

DSCC_FUNCTION float sinh(float x) {
  float a = fabs(x), z = x * x;
  if (a <= 1.0f) return fma(((2.03721912945e-4f * z + 8.33028376239e-3f) * z + 1.66667160211e-1f) * z, x, x);
  float half_way = exp(0.5f * a);  // its square may be too large, half of it not
  return copysign(0.5f * half_way * half_way - 0.5f / half_way / half_way, x);
}

DSCC_FUNCTION float cosh(float x) {
  float half_way = exp(0.5f * fabs(x));
  return 0.5f * half_way * half_way + 0.5f / half_way / half_way;
}

DSCC_FUNCTION float tanh(float x) {
  float a = fabs(x), z = x * x;
  if (a < 0.625f) {
    float p = (((-5.70498872745e-3f * z + 2.06390887954e-2f) * z - 5.37397155531e-2f) * z + 1.33314422036e-1f) * z -
              3.33332819422e-1f;
    return fma(p * z, x, x);
  }
  return copysign(1.0f - 2.0f / (exp(2.0f * a) + 1.0f), x);
}

// log(1 + x), with what the rounding of 1 + x takes away put back.
DSCC_FUNCTION float log1p(float x) {
  float u = 1.0f + x;
  return u > 0.0f && u < 1e30f ? log(u) + (x - (u - 1.0f)) / u : log(u);
}

DSCC_FUNCTION float asinh(float x) {
  float a = fabs(x), s = a * a;
  return copysign(a > 1e9f ? log(a) + 0.69314718056f : log1p(a + s / (sqrt(s + 1.0f) + 1.0f)), x);
}

DSCC_FUNCTION float acosh(float x) {
  float t = x - 1.0f;
  return x > 1e9f ? log(x) + 0.69314718056f : log1p(t + sqrt(t * (t + 2.0f)));
}

DSCC_FUNCTION float atanh(float x) {
  float a = fabs(x);
  return copysign(0.5f * log1p(2.0f * a / (1.0f - a)), x);
}

// ndtrf.c: by x * x near 0, by exp(-x * x) and 1 / x beyond 1.
DSCC_FUNCTION float erf(float x) {
  float a = fabs(x), z = x * x;
  if (a <= 1.0f) {
    float p = (((((7.853861353153693e-5f * z - 8.010193625184903e-4f) * z + 5.188327685732524e-3f) * z -
                 2.685381193529856e-2f) * z + 1.128358514861418e-1f) * z - 3.761262582423300e-1f) * z +
              1.128379165726710f;
    return p * x;
  }
  float q = 1.0f / a, y = q * q, p;
  if (a < 2.0f) {
    p = (((((((2.326819970068386e-2f * y - 1.387039388740657e-1f) * y + 3.687424674597105e-1f) * y -
             5.824733027278666e-1f) * y + 6.210004621745983e-1f) * y - 4.944515323274145e-1f) * y +
          3.404879937665872e-1f) * y - 2.741127028184656e-1f) * y + 5.638259427386472e-1f;
  } else {
    p = ((((((-1.047766399936249e+1f * y + 1.297719955372516e+1f) * y - 7.495518717768503f) * y +
            2.921019019210786f) * y - 1.015265279202700f) * y + 4.218463358204948e-1f) * y -
         2.820767439740514e-1f) * y + 5.641895067754075e-1f;
  }
  return a != a ? x : copysign(1.0f - exp(-z) * q * p, x);
}

// x to the y as 2 to the (y * log2 x), the exponent in double precision: log2 of the mantissa by the series of artanh.
DSCC_FUNCTION float pow(float x, float y) {
  if (x == 1.0f || y == 0.0f) return 1.0f;
  if (x != x || y != y) return x + y;
  float whole = rint(y);
  int is_whole = whole == y;
  int is_odd = is_whole && fabs(y) < 16777216.0f && ((int)whole & 1);
  float a = fabs(x), size;
  if (a == 0.0f || a == INFINITY) {
    size = (a == 0.0f) == (y > 0.0f) ? 0.0f : INFINITY;
  } else if (fabs(y) == INFINITY) {
    size = a == 1.0f ? 1.0f : (a > 1.0f) == (y > 0.0f) ? INFINITY : 0.0f;
    is_odd = 0;
    is_whole = 1;
  } else {
    ulong bits = as_ulong((double)a);
    int exponent = (int)(bits >> 52) - 1023;
    double m = as_double((bits & 0xFFFFFFFFFFFFFul) | 0x3FF0000000000000ul);
    if (m > 1.4142135623730951) {
      m *= 0.5;
      exponent += 1;
    }
    double s = (m - 1.0) / (m + 1.0), z = s * s;
    double p = ((((((z / 15.0 + 1.0 / 13.0) * z + 1.0 / 11.0) * z + 1.0 / 9.0) * z + 1.0 / 7.0) * z + 1.0 / 5.0) * z +
                1.0 / 3.0) * z + 1.0;
    double t = (double)y * ((double)exponent + 2.8853900817779268147 * s * p);
    t = t > 252.0 ? 252.0 : t < -252.0 ? -252.0 : t;
    double n = rint(t);
    float fraction = exp2((float)(t - n));
    int steps = (int)n, first = steps / 2;  // in two steps, either of which is a float
    size = fraction * as_float((uint)(first + 127) << 23) * as_float((uint)(steps - first + 127) << 23);
  }
  if (x < 0.0f && !is_whole && a != INFINITY) return NAN;
  return copysign(size, is_odd ? x : 1.0f);
}

#define DSCC_BY_FLOAT(F) DSCC_FUNCTION half F(half x) { return (half)F((float)x); }
DSCC_BY_FLOAT(sin) DSCC_BY_FLOAT(cos) DSCC_BY_FLOAT(tan) DSCC_BY_FLOAT(asin) DSCC_BY_FLOAT(acos) DSCC_BY_FLOAT(atan)
DSCC_BY_FLOAT(sinh) DSCC_BY_FLOAT(cosh) DSCC_BY_FLOAT(tanh) DSCC_BY_FLOAT(asinh) DSCC_BY_FLOAT(acosh)
DSCC_BY_FLOAT(atanh) DSCC_BY_FLOAT(log1p) DSCC_BY_FLOAT(erf)
DSCC_FUNCTION half pow(half x, half y) { return (half)pow((float)x, (float)y); }

#endif  // DSCC_MATH_H_
